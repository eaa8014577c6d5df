#include "cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <numeric>
#include <utility>

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

Command& Command::positionals(const std::string& name, std::vector<std::string>& target, const std::string& help,
                              bool required) {
  app_->add_option(name, target, help)->required(required);
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

namespace {

constexpr const char* kConfig = "--config";

// CLI11 reads files of options for the whole program only. What the command line gave wins.
void read_config(CLI::App& app, const std::string& file) {
  for (const CLI::ConfigItem& item : CLI::ConfigTOML().from_file(file)) {
    CLI::Option* option = item.parents.empty() ? app.get_option_no_throw("--" + item.name) : nullptr;
    if (option == nullptr || !option->get_configurable())
      fail_usage("[config] " + file + ": there is no option " + item.fullname());
    if (!option->empty()) continue;
    try {
      if (option->get_expected_min() == 0) {
        option->add_result(option->get_flag_value(item.name, CLI::ConfigTOML().to_flag(item)));
      } else {
        option->add_result(item.inputs);
      }
      option->run_callback();
    } catch (const CLI::ParseError& e) {
      fail_usage("[config] " + file + ": " + e.what());
    }
  }
}

}  // namespace

Command& Command::config(const std::string& help) {
  app_->add_option_function<std::string>(
          kConfig, [](const std::string&) {}, help)
      ->check(CLI::ExistingFile)
      ->configurable(false);
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
  app_->callback([app = app_, body = std::move(body)] {
    if (const CLI::Option* config = app->get_option_no_throw(kConfig); config != nullptr && !config->empty()) {
      read_config(*app, config->as<std::string>());
    }
    throw CLI::RuntimeError(body());
  });
}

namespace {

// Letters to change, insert or leave out (Levenshtein).
size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({changed, row[j] + 1, row[j - 1] + 1}));
    }
  }
  return row.back();
}

// "did you mean 'run'?", or the list if nothing is near.
std::string suggestion(const std::string& word, const std::vector<const CLI::App*>& commands) {
  std::string nearest, all;
  size_t least = 3;
  for (const CLI::App* c : commands) {
    const std::string& name = c->get_name();
    all += (all.empty() ? "" : ", ") + name;
    const bool begins = word.size() >= 3 && (name.starts_with(word) || word.starts_with(name));
    const size_t d = begins ? 0 : distance(word, name);
    if (d < least && d < name.size()) {
      least = d;
      nearest = name;
    }
  }
  return nearest.empty() ? "the commands are " + all : "did you mean '" + nearest + "'?";
}

}  // namespace

void check_command_names(const CLI::App& app, int argc, const char* const* argv) {
  const CLI::App* group = &app;
  for (int i = 1; i <= argc; ++i) {
    const auto commands = group->get_subcommands([](const CLI::App*) { return true; });
    if (commands.empty() || (i < argc && argv[i][0] == '-')) return;  // options are the parser's
    // A command that may stand by itself: the next word may be an argument of its own.
    const auto positional = [](const CLI::Option* o) { return o->get_positional(); };
    const bool may_end = group != &app && std::ranges::any_of(group->get_options(), positional);
    const std::string title = group == &app ? "krait" : group->get_name();
    if (i == argc) {
      if (may_end) return;
      fail_usage("[" + title + "] a command is wanted; " + suggestion("", commands));
    }
    const auto found = std::ranges::find(commands, argv[i], &CLI::App::get_name);
    if (found == commands.end()) {
      if (may_end) return;
      fail_usage("[" + title + "] unknown command '" + argv[i] + "'; " + suggestion(argv[i], commands));
    }
    group = *found;
  }
}

bool Command::given(const std::string& long_name) const { return app_->count(long_name) > 0; }

}  // namespace krait::cli
