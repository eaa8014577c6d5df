#include "krait/io/byte_stream.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "krait/core/error.h"

namespace krait::io {
namespace {

constexpr size_t kBuffer = 1 << 16;

std::string name_of(const std::string& path) { return path == "-" ? "standard input" : path; }

class File final : public ByteStream {
 public:
  File(const std::string& path, Poll poll) : name_(name_of(path)), poll_(std::move(poll)) {
    fd_ = path == "-" ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) fail(std::strerror(errno));
    struct stat st{};
    if (::fstat(fd_, &st) == 0 && S_ISDIR(st.st_mode)) fail("it is a folder");
  }
  ~File() override {
    if (fd_ > STDIN_FILENO) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  size_t read(char* to, size_t bytes) override {
    ssize_t n = -1;
    do {
      if (poll_) poll_();
      n = ::read(fd_, to, bytes);
    } while (n < 0 && errno == EINTR);
    if (n < 0) fail(std::strerror(errno));
    consumed_ += n;
    return static_cast<size_t>(n);
  }
  int64_t consumed() const override { return consumed_; }
  const std::string& name() const { return name_; }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw Error(ErrorCode::kFailed, "[read] cannot read " + name_ + ": " + why);
  }
  std::string name_;
  Poll poll_;
  int fd_ = -1;
  int64_t consumed_ = 0;
};

// A file and what of it was read already.
class Input {
 public:
  Input(const std::string& path, const Poll& poll) : file_(path, poll) {
    while (size_ < 4) {  // a pipe may give less than was asked for
      const size_t n = file_.read(buffer_.data() + size_, 4 - size_);
      if (n == 0) break;
      size_ += n;
    }
  }
  bool begins_with(std::string_view magic) const { return left().starts_with(magic); }
  std::string_view left() const { return {buffer_.data() + at_, size_ - at_}; }
  void take(size_t n) { at_ += n; }
  // More bytes, once none are left; false at the end.
  bool fill() {
    at_ = 0;
    size_ = file_.read(buffer_.data(), buffer_.size());
    return size_ > 0;
  }
  int64_t consumed() const { return file_.consumed() - static_cast<int64_t>(left().size()); }
  [[noreturn]] void fail(const std::string& what) const { fail_data("[read] " + file_.name() + ": " + what); }

 private:
  File file_;
  std::array<char, kBuffer> buffer_{};
  size_t at_ = 0, size_ = 0;
};

class Plain final : public ByteStream {
 public:
  explicit Plain(std::unique_ptr<Input> in) : in_(std::move(in)) {}
  size_t read(char* to, size_t bytes) override {
    if (in_->left().empty() && !in_->fill()) return 0;
    const size_t n = std::min(bytes, in_->left().size());
    std::memcpy(to, in_->left().data(), n);
    in_->take(n);
    return n;
  }
  int64_t consumed() const override { return in_->consumed(); }

 private:
  std::unique_ptr<Input> in_;
};

// One or more members (RFC 1952, §2.2).
class Gzip final : public ByteStream {
 public:
  explicit Gzip(std::unique_ptr<Input> in) : in_(std::move(in)) {
    if (inflateInit2(&z_, 16 + MAX_WBITS) != Z_OK) throw Error(ErrorCode::kFailed, "[read] out of memory");
  }
  ~Gzip() override { inflateEnd(&z_); }
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;

  size_t read(char* to, size_t bytes) override {
    z_.next_out = reinterpret_cast<Bytef*>(to);
    z_.avail_out = static_cast<uInt>(std::min(bytes, kBuffer));
    const uInt wanted = z_.avail_out;
    while (z_.avail_out == wanted) {
      if (in_->left().empty() && !in_->fill()) {
        if (inside_) in_->fail("truncated: the gzip data ends in the middle");
        return 0;
      }
      if (!inside_) {
        inflateReset(&z_);
        inside_ = true;
      }
      z_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in_->left().data()));
      z_.avail_in = static_cast<uInt>(in_->left().size());
      const int rc = inflate(&z_, Z_NO_FLUSH);
      in_->take(in_->left().size() - z_.avail_in);
      if (rc == Z_STREAM_END) inside_ = false;
      if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR) {
        in_->fail(fmt::format("corrupt gzip data at byte {}: {}", in_->consumed(), z_.msg != nullptr ? z_.msg : "?"));
      }
    }
    return wanted - z_.avail_out;
  }
  int64_t consumed() const override { return in_->consumed(); }

 private:
  std::unique_ptr<Input> in_;
  z_stream z_{};
  bool inside_ = false;  // of a member
};

class Zstd final : public ByteStream {
 public:
  explicit Zstd(std::unique_ptr<Input> in) : in_(std::move(in)), z_(ZSTD_createDCtx(), ZSTD_freeDCtx) {
    if (!z_) throw Error(ErrorCode::kFailed, "[read] out of memory");
  }
  size_t read(char* to, size_t bytes) override {
    ZSTD_outBuffer out{to, bytes, 0};
    while (out.pos == 0) {
      if (in_->left().empty() && !in_->fill()) {
        if (inside_) in_->fail("truncated: the Zstandard data ends in the middle");
        return 0;
      }
      ZSTD_inBuffer in{in_->left().data(), in_->left().size(), 0};
      const size_t rc = ZSTD_decompressStream(z_.get(), &out, &in);
      in_->take(in.pos);
      if (ZSTD_isError(rc) != 0) {
        in_->fail(fmt::format("corrupt Zstandard data at byte {}: {}", in_->consumed(), ZSTD_getErrorName(rc)));
      }
      inside_ = rc != 0;
    }
    return out.pos;
  }
  int64_t consumed() const override { return in_->consumed(); }

 private:
  std::unique_ptr<Input> in_;
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> z_;
  bool inside_ = false;  // of a frame
};

}  // namespace

std::unique_ptr<ByteStream> open_byte_stream(const std::string& path, const Poll& poll) {
  auto in = std::make_unique<Input>(path, poll);
  if (in->begins_with("\x1F\x8B")) return std::make_unique<Gzip>(std::move(in));
  if (in->begins_with("\x28\xB5\x2F\xFD")) return std::make_unique<Zstd>(std::move(in));
  return std::make_unique<Plain>(std::move(in));
}

bool LineReader::fill() {
  buffer_.erase(0, at_);
  at_ = 0;
  const size_t old = buffer_.size();
  buffer_.resize(old + kBuffer);
  const size_t n = stream_.read(buffer_.data() + old, kBuffer);
  buffer_.resize(old + n);
  return n > 0;
}

bool LineReader::next(std::string& line) {
  size_t searched = 0;
  for (;;) {
    const size_t end = buffer_.find('\n', at_ + searched);
    if (end != std::string::npos) {
      line.assign(buffer_, at_, end - at_);
      at_ = end + 1;
      return true;
    }
    searched = buffer_.size() - at_;
    if (fill()) continue;
    line = buffer_.substr(at_);
    at_ = buffer_.size();
    return !line.empty();
  }
}

std::string LineReader::rest() {
  while (fill()) continue;
  at_ = buffer_.size();
  return std::move(buffer_);
}

}  // namespace krait::io
