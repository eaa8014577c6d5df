// LoadClient: many streaming requests at once from one thread, with the times at which their tokens arrive.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace krait::cli {

struct Endpoint {
  std::string host;
  int port = 80;
};
// "http://host:port"; throws kUsage on anything else (TLS is not spoken).
Endpoint parse_url(const std::string& url);

struct LoadRequest {
  std::string body;  // JSON of POST /v1/completions
};

// What became of a request. Times in seconds since the client was made.
struct LoadResult {
  double due = 0, sent = 0, first = -1, end = 0;
  std::vector<double> tokens;                                           // arrival of each event that carries text
  int status = 0;                                                       // 0: no answer
  std::string error;                                                    // empty: all went well
  int64_t completion_tokens = 0, prompt_tokens = 0, cached_tokens = 0;  // as the server says
};

class LoadClient {
 public:
  // Throws kFailed if the host cannot be resolved.
  LoadClient(const Endpoint& endpoint, std::string api_key);
  ~LoadClient();

  double now() const;
  // Sends it when its time has come.
  void submit(double due, LoadRequest request);
  size_t running() const;  // sent or due
  // Works until `until` or until something has ended; returns what has.
  std::vector<LoadResult> poll(double until);
  // Closes all connections. Returns how many events with text had come for what was still running.
  int64_t abandon();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krait::cli
