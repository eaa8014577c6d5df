// RequestParser: bytes of a connection -> one request, or what is wrong with it. No sockets, no clock.
#pragma once
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "krait/serve/http/exchange.h"

namespace krait::serve {

class RequestParser {
 public:
  struct Problem {
    int status;           // 400, 413, 417, 431, 501, 505
    std::string message;  // for the client
  };

  RequestParser(size_t max_header, size_t max_body);  // bytes
  ~RequestParser();

  // Takes what belongs to the request from the front of `in` and returns how many bytes that were; what is left over is
  // to be given again, with more behind it, or belongs to the next request. Not to be called after done() or problem().
  size_t put(std::string_view in);

  bool header_done() const;
  bool done() const;         // the body too
  size_t body_size() const;  // as far as it is there
  const std::optional<Problem>& problem() const { return problem_; }

  // Once the header is done.
  const HttpRequest& head() const { return request_; }         // without the body
  bool expects_continue() const { return expects_continue_; }  // and there is a body to wait for
  bool keep_alive() const { return keep_alive_; }
  int minor_version() const { return minor_version_; }  // 0, 1: HTTP/1.x

  // Once done: method, path, query, headers, body. Trailers of a chunked body are dropped.
  HttpRequest take();

 private:
  struct Impl;
  void refuse(int status, std::string message) { problem_ = Problem{status, std::move(message)}; }
  void header_complete();
  void check_framing();

  std::unique_ptr<Impl> impl_;
  size_t max_header_, header_bytes_ = 0;
  std::optional<Problem> problem_;
  HttpRequest request_;
  bool expects_continue_ = false, keep_alive_ = false;
  int minor_version_ = 1;
};

}  // namespace krait::serve
