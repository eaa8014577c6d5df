#include "cli.h"

#include <CLI/CLI.hpp>
#include <charconv>

#include "krait/core/error.h"

namespace krait::cli {

Command Command::subcommand(const std::string& name, const std::string& help) {
  CLI::App* sub = app_->add_subcommand(name, help);
  sub->fallthrough(false);
  return Command(sub);
}

Command& Command::positional(const std::string& name, std::string& target, const std::string& help, bool required) {
  app_->add_option(name, target, help)->required(required);
  return *this;
}

Command& Command::positionals(const std::string& name, std::vector<std::string>& target, const std::string& help) {
  app_->add_option(name, target, help)->required();
  return *this;
}

Command& Command::option(const std::string& names, std::string& target, const std::string& help) {
  app_->add_option(names, target, help)->capture_default_str();
  return *this;
}

namespace {

// CLI11 clamps numbers that do not fit; here they are errors.
std::string not_an_integer(const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data() + (text.starts_with('+') ? 1 : 0), end, value);
  return error == std::errc() && at == end ? "" : "'" + text + "' is not an integer of 64 bits";
}

}  // namespace

Command& Command::option(const std::string& names, int64_t& target, const std::string& help) {
  app_->add_option(names, target, help)->capture_default_str()->check(not_an_integer);
  return *this;
}

Command& Command::option(const std::string& names, double& target, const std::string& help) {
  app_->add_option(names, target, help)->capture_default_str();
  return *this;
}

Command& Command::list(const std::string& names, std::vector<std::string>& target, const std::string& help) {
  app_->add_option(names, target, help)->expected(1)->take_all();
  return *this;
}

Command& Command::list(const std::string& names, std::vector<int64_t>& target, const std::string& help) {
  app_->add_option(names, target, help)
      ->check(not_an_integer)
      ->delimiter(',')
      ->expected(1)
      ->take_all()
      ->capture_default_str();
  return *this;
}

Command& Command::choice(const std::string& names, std::string& target, const std::vector<std::string>& of,
                         const std::string& help) {
  app_->add_option(names, target, help)->check(CLI::IsMember(of))->capture_default_str();
  return *this;
}

Command& Command::flag(const std::string& names, bool& target, const std::string& help) {
  app_->add_flag(names, target, help);
  return *this;
}

Command& Command::refuse(const std::string& names, const std::string& reason) {
  const auto fail = [names, reason](const CLI::results_t&) -> bool { fail_usage("[" + names + "] " + reason); };
  app_->add_option(names, fail)->group("");
  return *this;
}

Command& Command::footer(const std::string& text) {
  app_->footer(text);
  return *this;
}

void Command::run(std::function<int()> body) {
  // The exit code travels as CLI11's own way out of a callback.
  app_->callback([body = std::move(body)] { throw CLI::RuntimeError(body()); });
}

bool Command::given(const std::string& long_name) const { return app_->count(long_name) > 0; }

}  // namespace krait::cli
