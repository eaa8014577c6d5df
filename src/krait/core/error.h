// The one exception type. Thrown anywhere, turned into an exit code or HTTP status at the edge only.
#pragma once
#include <stdexcept>
#include <string>

namespace krait {

enum class ErrorCode {
  kFailed = 1,     // the operation could not be done (I/O, out of memory, cancelled)
  kUsage = 2,      // the caller asked for something that makes no sense; nothing was read
  kBadData = 3,    // a model, file, or input is malformed or does not fit
  kInternal = 70,  // a broken invariant of ours: a bug
};

// `what()` reads "[op] rule, and the values", e.g. "[matmul] x is [13, 768], weight wants K = 1024".
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

[[noreturn]] inline void fail_data(const std::string& message) { throw Error(ErrorCode::kBadData, message); }
[[noreturn]] inline void fail_usage(const std::string& message) { throw Error(ErrorCode::kUsage, message); }

}  // namespace krait
