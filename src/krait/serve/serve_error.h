// ServeError: what a client is told when a request cannot be served: an HTTP status and the fields of OpenAI's error
// object. Thrown below the HTTP layer, written by it.
#pragma once
#include <optional>
#include <stdexcept>
#include <string>

namespace krait::serve {

class ServeError : public std::runtime_error {
 public:
  // `code`: a word for programs ("conversation_busy"); `param`: the field of the request that is at fault.
  ServeError(int status, std::string code, const std::string& message, std::optional<std::string> param = {})
      : std::runtime_error(message), status_(status), code_(std::move(code)), param_(std::move(param)) {}

  int status() const { return status_; }  // 4xx or 5xx
  const std::string& code() const { return code_; }
  const std::optional<std::string>& param() const { return param_; }
  // "invalid_request_error", "authentication_error", "not_found_error", "conflict_error", "rate_limit_error",
  // "server_error": follows from the status.
  const char* type() const;
  // Seconds after which to try again: the header Retry-After of 429 and 503.
  std::optional<int> retry_after() const { return retry_after_; }
  ServeError&& after(int seconds) && {
    retry_after_ = seconds;
    return std::move(*this);
  }

 private:
  int status_;
  std::string code_;
  std::optional<std::string> param_;
  std::optional<int> retry_after_;
};

// The exception in flight as a ServeError: a ServeError as it is, Error kUsage and kBadData as 400, all else as 500
// without its text (which goes to the log).
ServeError current_serve_error();

}  // namespace krait::serve
