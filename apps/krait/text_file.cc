#include "text_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>

#include "krait/core/error.h"
#include "krait/text/utf8.h"

namespace krait::cli {

TextFile::TextFile(const std::string& path)
    : name_(path == "-" ? "standard input" : path), file_(path == "-" ? stdin : std::fopen(path.c_str(), "rb")) {
  if (!file_) fail(std::strerror(errno));
}

void TextFile::fail(const std::string& why) const {
  throw Error(ErrorCode::kFailed, "[read] cannot read " + name_ + ": " + why);
}

void TextFile::require_end() const {
  struct stat st{};
  if (::fstat(::fileno(file_.get()), &st) != 0) fail(std::strerror(errno));
  if (file_.get() != stdin && !S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode)) fail("it is neither a file nor a pipe");
}

void TextFile::fill(size_t bytes) {
  char buffer[1 << 16];
  while (!ended_ && text_.size() < bytes) {
    const size_t n = std::fread(buffer, 1, std::min(sizeof buffer, bytes - text_.size()), file_.get());
    text_.append(buffer, n);
    if (n > 0) continue;
    if (std::ferror(file_.get()) != 0) fail(std::strerror(errno));
    ended_ = true;
  }
}

std::string TextFile::first(size_t bytes) {
  fill(bytes);
  size_t end = text_.size();
  for (size_t back = 1; !ended_ && back <= std::min<size_t>(3, end); ++back) {
    const auto c = text::decode_utf8(std::string_view(text_).substr(end - back));
    if (c.status != text::Utf8Status::kIncomplete) continue;
    end -= back;
    break;
  }
  return text_.substr(0, end);
}

std::string TextFile::all() {
  fill(std::numeric_limits<size_t>::max());
  return text_;
}

std::string read_text(const std::string& path) { return TextFile(path).all(); }

}  // namespace krait::cli
