// Exchange: one HTTP request being answered, apart from any HTTP library. What routes and formats sees only this.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace krait::serve {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // percent-decoded, starts with "/", without "." and ".." segments (such targets are refused)
  std::vector<std::pair<std::string, std::string>> query;  // decoded, in order
  Headers headers;                                         // names in lower case
  std::string body;
  std::string remote;  // address of the peer
  std::string id;      // X-Request-Id: the client's if it is sane (<= 128 of [A-Za-z0-9._-]), else our own

  const std::string* header(std::string_view lower_case_name) const;  // null: absent
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  Headers headers = {};
};

// One event of a stream (text/event-stream).
struct SseEvent {
  std::string id;     // empty: none
  std::string event;  // empty: none ("message")
  std::string data;   // may have several lines
};

// Answered exactly once: respond(), or begin_stream() … end_stream(); Error kInternal otherwise. All members may be
// called from any thread, in order; nothing blocks. Destroyed unanswered: the client gets a 500; destroyed within a
// stream: the connection breaks off, so that no client takes the part for the whole.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const HttpRequest& request() const = 0;

  virtual void respond(HttpResponse response) = 0;

  // Status 200, text/event-stream. The server sends heartbeat comments while no events come.
  virtual void begin_stream(Headers headers) = 0;
  // False: the client is gone, or reads so slowly that more than the limit waits for it (it is then cut off).
  virtual bool send(const SseEvent& event) = 0;
  virtual void end_stream() = 0;

  virtual bool gone() const = 0;
  // Called once, on an IO thread, if the client goes before the answer is complete; soon if it has gone already. A
  // client has gone when it has closed the connection or its sending side. `f` is dropped once the answer is complete.
  virtual void on_gone(std::function<void()> f) = 0;
  // Runs `f` on the IO threads, outside any lock: for work that the engine's thread should not do. In order for one
  // exchange, never two at a time. Still run (or dropped at shutdown) after the client has gone.
  virtual void post(std::function<void()> f) = 0;
};

// Called on an IO thread for every well-formed request, body complete. What it throws becomes an error response.
using Handler = std::function<void(std::shared_ptr<Exchange>)>;

}  // namespace krait::serve
