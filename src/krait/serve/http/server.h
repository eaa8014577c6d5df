// HttpServer: listens, parses, limits, keeps connections alive, streams; knows nothing of models or routes.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "krait/serve/http/exchange.h"

namespace krait::serve {

struct HttpOptions {
  std::string host = "127.0.0.1";        // an address or "localhost"; "::" for all of IPv6 and IPv4
  uint16_t port = 8080;                  // 0: any free one
  int threads = 1;                       // IO threads
  std::string tls_certificate, tls_key;  // PEM files; both or none

  size_t max_body = size_t{16} << 20;                // bytes; beyond: 413
  size_t max_header = size_t{16} << 10;              // bytes of request line and headers; beyond: 431
  int max_connections = 4096;                        // beyond: 503 and close
  std::chrono::milliseconds header_timeout{10'000};  // for a request line and headers, from the first byte
  std::chrono::milliseconds body_timeout{60'000};
  std::chrono::milliseconds idle_timeout{75'000};   // between requests of a kept connection
  std::chrono::milliseconds write_timeout{30'000};  // no byte could be written for so long: cut off
  std::chrono::milliseconds heartbeat{15'000};      // comment lines on a silent stream
  size_t max_backlog = size_t{4} << 20;             // bytes of a stream waiting for a slow reader
  // Bytes of long bodies and unwritten answers of all connections; beyond: 503, and slow streams are cut off.
  size_t max_held = size_t{256} << 20;
  // Makes the body of errors that the server itself reports (400, 408, 413, 417, 431, 500, 501, 503, 505); JSON.
  // Without it, and for what the handler throws: error_response() of response.h, OpenAI's form.
  std::string (*error_body)(int status, const std::string& message) = nullptr;
  // Looks at every request when its headers are there, before any of its body is read; throws ServeError to refuse it.
  // On an IO thread.
  std::function<void(const HttpRequest& head)> admit;
  Headers headers = {};  // of every answer
  // For the log: what the handler, or what it posted, threw and the client is told nothing of but "500". On an IO
  // thread; must not throw.
  std::function<void(const std::string& request_id, const std::string& what)> on_failure;
};

struct HttpStats {
  int64_t connections = 0;                                                       // open now
  int64_t streams = 0;                                                           // running now
  int64_t accepted = 0, refused = 0, malformed = 0, timed_out = 0, cut_off = 0;  // since the start
};

class HttpServer {
 public:
  // Binds; throws Error kFailed with the reason if it cannot (address in use, no such certificate, …). `handler` must
  // stay callable until the server is destroyed.
  HttpServer(HttpOptions options, Handler handler);
  ~HttpServer();  // stop()
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  void start();  // begins to accept, on its own threads; once
  uint16_t port() const;
  HttpStats stats() const;
  // Reads the certificate files again; connections that are open keep the old ones. Throws and changes nothing if they
  // are bad.
  void reload_tls();

  // No new connections; kept connections close after the answer in progress. Returns true once all are closed, false
  // after `patience` with some still open.
  bool drain(std::chrono::milliseconds patience);
  // Closes all connections now: on_gone() for what is not answered, then no more calls from the IO threads, whatever is
  // done with exchanges that are still held. Not from an IO thread.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krait::serve
