// The command line as commands see it. A facade, so that one file alone includes CLI11.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace krait::cli {

// One subcommand (or a group of them). Option names as in CLI11: "-n,--tokens". Targets must outlive the parse; a
// shared_ptr to a struct of them, captured by the body, does.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  Command subcommand(const std::string& name, const std::string& help);
  Command& positional(const std::string& name, std::string& target, const std::string& help, bool required = true);
  Command& positionals(const std::string& name, std::vector<std::string>& target, const std::string& help,
                       bool required = true);
  Command& option(const std::string& names, std::string& target, const std::string& help);
  Command& option(const std::string& names, int64_t& target, const std::string& help);
  Command& option(const std::string& names, double& target, const std::string& help);
  Command& list(const std::string& names, std::vector<std::string>& target, const std::string& help);  // repeatable
  Command& list(const std::string& names, std::vector<int64_t>& target, const std::string& help);  // 1,16; repeatable
  Command& choice(const std::string& names, std::string& target, const std::vector<std::string>& of,
                  const std::string& help);
  Command& flag(const std::string& names, bool& target, const std::string& help);
  // --config FILE: TOML that gives options of this command by their long names; the command line wins.
  Command& config(const std::string& help);
  // An option that users of other programs look for and that makes no sense here: an error that says why. Not in
  // --help.
  Command& refuse(const std::string& names, const std::string& reason);
  Command& footer(const std::string& text);
  // What the command does; returns the exit code. Errors are thrown.
  void run(std::function<int()> body);
  // Whether the option was given on the command line (valid inside the body).
  bool given(const std::string& long_name) const;

 private:
  CLI::App* app_;
};

// Throws kUsage, with what is near it, if the first word is no command of the program (or the second none of a group).
void check_command_names(const CLI::App& app, int argc, const char* const* argv);

// Each adds one command to the program.
void add_bench(Command& root);
void add_bench_serve(Command& bench);
void add_bench_train(Command& bench);
void add_convert(Command& root);
void add_doctor(Command& root);
void add_export(Command& root);
void add_gradients(Command& root);
void add_inspect(Command& root);
void add_lora(Command& root);
void add_logits(Command& root);
void add_new(Command& root);
void add_perplexity(Command& root);
void add_plot(Command& root);
void add_quantize(Command& root);
void add_run(Command& root);
void add_serve(Command& root);
void add_state(Command& root);
void add_task(Command& root);
void add_tokenize(Command& root);
void add_tokenizer(Command& root);
void add_train(Command& root);
void add_verify(Command& root);

}  // namespace krait::cli
