// The bytes of answers: heads, bodies, chunks, events; and errors in OpenAI's form.
#pragma once
#include <string>
#include <string_view>

#include "krait/serve/http/exchange.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {

// What an answer must know of its request.
struct Framing {
  bool head = false;        // the method was HEAD: headers only
  bool keep_alive = false;  // the connection stays open
  int minor_version = 1;    // of HTTP/1.x; 0 knows no chunks: a stream ends with the connection
  std::string id;           // goes out as X-Request-Id
  Headers extra = {};       // go out with every answer

  bool chunked() const { return minor_version >= 1; }
};

// Headers that frame the message (Content-Length, Transfer-Encoding, Connection, Date) are the server's: those in
// `headers` are left out. Control characters in names and values become spaces: a value cannot end its line.
std::string format_response(const HttpResponse& response, const Framing& framing);
std::string format_stream_head(const Headers& headers, const Framing& framing);
// Behind the head of a stream; nothing for HEAD.
void append_event(std::string& out, const SseEvent& event, const Framing& framing);
void append_heartbeat(std::string& out, const Framing& framing);
void append_stream_end(std::string& out, const Framing& framing);

const char* reason_phrase(int status);
// {"error": {"message", "type", "param", "code"}}, with Retry-After where the error has it.
HttpResponse error_response(const ServeError& error);
// The word for programs of an error that the server itself reports: 413 -> "request_too_large".
const char* error_code_word(int status);

}  // namespace krait::serve
