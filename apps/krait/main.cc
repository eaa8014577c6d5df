// krait: one program, one file a subcommand. Exit codes: 0 ok, 1 failed, 2 usage, 3 bad model or data.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

#include "cli.h"
#include "krait/core/error.h"

namespace {

constexpr const char* kVersion = "krait " KRAIT_VERSION;

int exit_code(krait::ErrorCode code) { return static_cast<int>(code); }

int run(int argc, char** argv) {
  CLI::App app(
      "Krait runs state space language models (Mamba-1, Mamba-2, Mamba-3) with their state as a first-class object.",
      "krait");
  app.set_version_flag("--version", kVersion);
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 bad model or data, 130 ended by Ctrl-C. 'krait COMMAND --help' "
      "tells more.");
  krait::cli::Command root(&app);
  krait::cli::add_run(root);
  krait::cli::add_logits(root);
  krait::cli::add_perplexity(root);
  krait::cli::add_bench(root);
  krait::cli::add_inspect(root);
  krait::cli::add_verify(root);
  krait::cli::add_state(root);
  krait::cli::add_convert(root);
  krait::cli::add_new(root);
  krait::cli::add_tokenize(root);
  krait::cli::add_doctor(root);
  try {
    app.parse(argc, argv);
  } catch (const CLI::RuntimeError& done) {  // a command's own exit code
    return done.get_exit_code();
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is an error of the write, not a death
  try {
    const int code = run(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      std::perror("krait: stdout");
      return 1;
    }
    return code;
  } catch (const krait::Error& e) {
    std::fprintf(stderr, "krait: %s\n", e.what());
    return exit_code(e.code());
  } catch (const std::bad_alloc&) {
    std::fputs("krait: out of memory\n", stderr);
    return 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "krait: %s\n", e.what());
    return 1;
  }
}
