// krait: one program, one file a subcommand. Exit codes: 0 ok, 1 failed, 2 usage, 3 bad model or data.
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include "cli.h"
#include "krait/core/error.h"
#include "krait/text/utf8.h"
#include "terminal.h"

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
      "Exit codes: 0 ok, 1 failed (a file that cannot be read or written, too), 2 wrong usage, 3 bad model or data, "
      "130 ended\nby Ctrl-C, 143 by SIGTERM. A reader of the output that goes away ('| head') is no error. "
      "'krait COMMAND --help' tells\nmore.");
  krait::cli::Command root(&app);
  krait::cli::add_run(root);
  krait::cli::add_serve(root);
  krait::cli::add_logits(root);
  krait::cli::add_perplexity(root);
  krait::cli::add_gradients(root);
  krait::cli::add_plot(root);
  krait::cli::add_bench(root);
  krait::cli::add_inspect(root);
  krait::cli::add_verify(root);
  krait::cli::add_state(root);
  krait::cli::add_convert(root);
  krait::cli::add_quantize(root);
  krait::cli::add_lora(root);
  krait::cli::add_new(root);
  krait::cli::add_task(root);
  krait::cli::add_tokenize(root);
  krait::cli::add_tokenizer(root);
  krait::cli::add_train(root);
  krait::cli::add_export(root);
  krait::cli::add_doctor(root);
  krait::cli::check_command_names(app, argc, argv);
  try {
    app.parse(argc, argv);
  } catch (const CLI::RuntimeError& done) {  // a command's own exit code
    return done.get_exit_code();
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  return 0;
}

// What was printed must have arrived, unless nobody wants it: `krait tokenize … | head -1` has what it asked for.
int finish_output(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  const int error = errno;
  pollfd out{STDOUT_FILENO, POLLOUT, 0};
  if (poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0) return code;
  std::fprintf(stderr, "krait: [stdout] cannot write: %s\n", std::strerror(error));
  return 1;
}

// Messages quote names and strings of files, which may be anything.
void say(const char* message) { std::fprintf(stderr, "krait: %s\n", krait::text::escape_message(message).c_str()); }

}  // namespace

int main(int argc, char** argv) {
  krait::cli::handle_signals();
  try {
    return finish_output(run(argc, argv));
  } catch (const krait::cli::Interrupted& e) {
    std::fputs(e.signal == SIGINT ? "krait: interrupted\n" : "krait: terminated\n", stderr);
    return 128 + e.signal;
  } catch (const krait::Error& e) {
    say(e.what());
    return exit_code(e.code());
  } catch (const std::bad_alloc&) {
    std::fputs("krait: out of memory\n", stderr);
    return 1;
  } catch (const std::exception& e) {
    say(e.what());
    return 1;
  }
}
