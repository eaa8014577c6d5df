// The edges of a program that talks: standard output that may fail, signals, typed lines.
#pragma once
#include <atomic>
#include <optional>
#include <string>
#include <string_view>

namespace krait::cli {

// Standard output, unbuffered, so that every token is seen as it comes.
class Output {
 public:
  // Throws kFailed if it cannot be written (a full disk). A reader that has gone away is no failure: see closed().
  void write(std::string_view text);
  bool closed() const { return closed_; }
  bool terminal() const { return terminal_; }
  // For callbacks that must not throw: false if the text could not be written; rethrow() then says why.
  bool try_write(std::string_view text) noexcept;
  void rethrow() const;

  Output();

 private:
  bool terminal_, closed_ = false;
  std::exception_ptr failure_;
};

// From here on SIGINT and SIGTERM end the program with a message and exit code 128 + signal, at once: right as long as
// nothing is half written, and files that are being written have no name yet. A closed pipe becomes an error of write()
// and a file-size limit one too, instead of a signal.
void handle_signals();

// A signal that was noted, on its way to main().
struct Interrupted {
  int signal;
};

// While it lives, SIGINT and SIGTERM are noted instead of ending the program at once (the third one does). One at a
// time.
class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  static const std::atomic<bool>& interrupted();
  static int received();  // 0: none since take(); SIGTERM where both came
  static int take();      // received(), which is then forgotten; one that comes meanwhile is kept
  static void check();    // throws Interrupted if one was received
};

enum class LineEnd : uint8_t { kLine, kEndOfFile, kInterrupted };
// Reads lines from standard input. A signal that was noted, before the call or in it, ends it and what was typed so far
// is thrown away; it stays noted until Signals::take().
class LineReader {
 public:
  LineEnd next(std::string& line);  // without its newline

 private:
  void read_more();

  bool at_end_ = false;
  std::string buffer_;
};

}  // namespace krait::cli
