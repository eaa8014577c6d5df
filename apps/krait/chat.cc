#include "chat.h"

#include <unistd.h>

#include <csignal>

#include <cstdio>
#include <map>

#include "krait/core/error.h"
#include "krait/text/utf8.h"
#include "run_report.h"
#include "terminal.h"

namespace krait::cli {
namespace {

constexpr const char* kHelp =
    "/help       this list\n"
    "/regen      write the last answer again, with other random draws\n"
    "/undo       take the last turn back; it is not read again\n"
    "/reset      forget everything\n"
    "/save FILE  write the state to a file\n"
    "/load FILE  go on from a state in a file\n"
    "/stats      tokens and memory\n"
    "/exit       leave (also Ctrl-D)\n"
    "A message that begins with a slash: write two. A line that ends with a backslash goes on in the next one.\n"
    "Ctrl-C stops the answer.\n";

class Chat {
 public:
  Chat(const RunArgs& args, const Session& session, const text::ChatTemplate* chat, ConversationOptions options)
      : args_(args),
        plain_(chat == nullptr),
        conversation_(session, chat, std::move(options)),
        terminal_(out_.terminal() && isatty(STDIN_FILENO) == 1) {}

  int run(std::shared_ptr<const State> start) {
    if (start) conversation_.load(std::move(start));
    greet();
    if (args_.has_prompt) handle(args_.prompt);
    for (std::string line; !leave_ && !terminated_ && !out_.closed() && next_message(line);) handle(line);
    if (terminal_ && !leave_) out_.write("\n");
    if (!args_.save_state.empty()) save(args_.save_state);
    return terminated_ ? 128 + SIGTERM : 0;
  }

 private:
  void greet() {
    if (!terminal_) return;
    note(plain_ ? "The model writes on from your text; an empty line lets it go on. /help lists the commands."
                : "A chat. /help lists the commands.");
  }

  // False at the end of input. Interrupting a half-typed message throws it away.
  bool next_message(std::string& message) {
    message.clear();
    for (bool more = true; more;) {
      if (terminal_) out_.write(message.empty() ? "\033[1;32m> \033[0m" : "\033[1;32m. \033[0m");
      std::string line;
      const LineEnd end = lines_.next(line);
      if (end == LineEnd::kEndOfFile) return false;
      if (end == LineEnd::kInterrupted) {
        take_signal();
        if (terminated_) return false;
        message.clear();
        if (terminal_) out_.write("\n");
        note("Ctrl-D or /exit leaves.");
        continue;
      }
      more = line.ends_with('\\');
      if (more) line.back() = '\n';
      message += line;
    }
    return true;
  }

  // A message or a command. What goes wrong is said and leaves the conversation as it was.
  void handle(const std::string& line) {
    try {
      if (line.starts_with("//")) {
        say(line.substr(1));
      } else if (line.starts_with('/')) {
        command(line);
      } else if (!line.empty() || plain_) {
        say(line);
      }
    } catch (const Error& e) {
      note(text::escape_message(e.what()));
    }
    take_signal();
    out_.rethrow();
  }

  // A Ctrl-C has done its work when the answer or the line that it stopped is gone.
  void take_signal() { terminated_ |= Signals::take() == SIGTERM; }

  void say(const std::string& message) {
    const std::string text = require_utf8(message, "the message", args_.lossy_utf8);
    finish(conversation_.say(text, [this](const std::string& part) { return show(part); }));
  }

  void command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(0, space);
    const std::string argument = space == std::string::npos ? "" : line.substr(space + 1);
    const bool wants_file = name == "/save" || name == "/load";
    if (wants_file && argument.empty()) fail_usage("[chat] " + name + " needs a file");
    if (!wants_file && !argument.empty()) fail_usage("[chat] " + name + " takes nothing after it");
    const std::map<std::string, std::function<void()>> commands = {
        {"/help", [&] { note(kHelp); }},
        {"/regen", [&] { regenerate(); }},
        {"/undo", [&] { undo(); }},
        {"/reset", [&] { conversation_.reset(); }},
        {"/save", [&] { save(argument); }},
        {"/load", [&] { conversation_.load(std::make_shared<const State>(read_state(argument))); }},
        {"/stats", [&] { stats(); }},
        {"/exit", [&] { leave_ = true; }}};
    const auto found = commands.find(name);
    if (found == commands.end()) fail_usage("[chat] there is no " + name + "; /help lists the commands");
    found->second();
  }

  void regenerate() {
    if (conversation_.greedy()) note("With --temp 0 the answer is the same again.");
    finish(conversation_.regenerate([this](const std::string& text) { return show(text); }));
  }

  void undo() {
    conversation_.undo();
    note(std::to_string(conversation_.turns()) + " turn(s) left, token " + std::to_string(position()));
  }

  void save(const std::string& file) {
    if (!conversation_.state()) fail_usage("[chat] nothing has been read yet: there is no state to save");
    write_state(file, *conversation_.state());
    note("token " + std::to_string(position()) + " saved in " + file);
  }

  bool show(const std::string& text) {
    if (!text.empty()) ends_line_ = text.back() == '\n';
    return out_.try_write(text);
  }

  void finish(const Reply& r) {
    if (!ends_line_) out_.try_write("\n");
    ends_line_ = true;
    if (r.taken_back) note("Stopped while reading: the message is taken back.");
    if (!r.note.empty()) note(r.note);
    read_ += r.read;
    written_ += r.written;
    last_ = report_line(r.read, r.read_seconds, r.written, r.write_seconds);
    if (args_.verbose) note("[" + last_ + "]");
  }

  void stats() {
    note("token " + std::to_string(position()) + ", " + std::to_string(conversation_.turns()) + " turn(s); read " +
         std::to_string(read_) + " and wrote " + std::to_string(written_) + " tokens in all");
    if (!last_.empty()) note("last turn: " + last_);
    const int64_t bytes = conversation_.state() ? conversation_.state()->nbytes() : 0;
    note("state " + std::to_string(bytes >> 10) +
         " KiB; kept to go back to: " + std::to_string(conversation_.kept_bytes() >> 10) + " KiB");
  }

  int64_t position() const { return conversation_.state() ? conversation_.state()->position() : 0; }

  // Beside the conversation: on stderr, so that a file of the answers stays clean.
  void note(const std::string& text) {
    const bool dim = terminal_ && isatty(STDERR_FILENO) == 1;
    std::fprintf(stderr, "%s%s%s%s", dim ? "\033[2m" : "", text.c_str(), text.ends_with('\n') ? "" : "\n",
                 dim ? "\033[0m" : "");
  }

  const RunArgs& args_;
  bool plain_;
  Output out_;
  Conversation conversation_;
  LineReader lines_;
  bool terminal_, leave_ = false, terminated_ = false, ends_line_ = true;
  int64_t read_ = 0, written_ = 0;
  std::string last_;
};

}  // namespace

int chat(const RunArgs& a, const Session& s, std::shared_ptr<const State> start) {
  const auto format = chat_template(a, *s.tokenizer);
  if (start && !a.system.empty()) {
    fail_usage("[run] a loaded state already has its beginning: --system cannot be put before it");
  }
  if (!format && !a.system.empty()) fail_usage("[run] --system needs a chat template");
  ConversationOptions o;
  o.sampler = sampler_params(a, s);
  o.stop_ids = stop_ids(a, s);
  o.stops = a.stop;
  o.max_new_tokens = format && !a.has_n ? -1 : a.n_predict;
  o.system = a.system;
  o.new_rng = a.has_seed;
  o.cancel = &Signals::interrupted();
  return Chat(a, s, format.get(), std::move(o)).run(std::move(start));
}

}  // namespace krait::cli
