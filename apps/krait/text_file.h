// Text files, pipes and standard input ("-").
#pragma once
#include <cstdio>
#include <memory>
#include <string>

namespace krait::cli {

// Read no further than it is asked for. Every member throws kFailed if the file cannot be read.
class TextFile {
 public:
  explicit TextFile(const std::string& path);

  void require_end() const;  // throws kFailed unless it is a file or a pipe: devices may go on for ever
  // Whole characters, at most `bytes`; more than the last call gave unless ended().
  std::string first(size_t bytes);
  std::string all();
  bool ended() const { return ended_; }
  const std::string& name() const { return name_; }

 private:
  [[noreturn]] void fail(const std::string& why) const;
  void fill(size_t bytes);

  struct Close {
    void operator()(std::FILE* f) const {
      if (f != stdin) std::fclose(f);
    }
  };
  std::string name_, text_;
  std::unique_ptr<std::FILE, Close> file_;
  bool ended_ = false;
};

// Content of a file, or of standard input for "-". Throws kFailed.
std::string read_text(const std::string& path);

}  // namespace krait::cli
