#include "krait/serve/http/response.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <iterator>
#include <nlohmann/json.hpp>

namespace krait::serve {
namespace {

struct StatusWords {
  int status;
  const char* reason;
  const char* code;
};
constexpr StatusWords kStatusWords[] = {
    {200, "OK", ""},
    {201, "Created", ""},
    {202, "Accepted", ""},
    {204, "No Content", ""},
    {206, "Partial Content", ""},
    {304, "Not Modified", ""},
    {400, "Bad Request", "bad_request"},
    {401, "Unauthorized", "invalid_api_key"},
    {403, "Forbidden", "forbidden"},
    {404, "Not Found", "not_found"},
    {405, "Method Not Allowed", "method_not_allowed"},
    {406, "Not Acceptable", "not_acceptable"},
    {408, "Request Timeout", "request_timeout"},
    {409, "Conflict", "conflict"},
    {410, "Gone", "gone"},
    {412, "Precondition Failed", "precondition_failed"},
    {413, "Content Too Large", "request_too_large"},
    {415, "Unsupported Media Type", "unsupported_media_type"},
    {417, "Expectation Failed", "expectation_failed"},
    {422, "Unprocessable Content", "unprocessable"},
    {429, "Too Many Requests", "rate_limit_exceeded"},
    {431, "Request Header Fields Too Large", "headers_too_large"},
    {499, "Client Closed Request", "client_closed_request"},
    {500, "Internal Server Error", "internal_error"},
    {501, "Not Implemented", "not_implemented"},
    {503, "Service Unavailable", "service_unavailable"},
    {504, "Gateway Timeout", "timeout"},
    {505, "HTTP Version Not Supported", "http_version_not_supported"},
    {507, "Insufficient Storage", "insufficient_storage"},
};
constexpr StatusWords kOther = {0, "Unknown", "error"};

const StatusWords& words_of(int status) {
  const auto* found = std::find_if(std::begin(kStatusWords), std::end(kStatusWords),
                                   [&](const StatusWords& w) { return w.status == status; });
  return found == std::end(kStatusWords) ? kOther : *found;
}

// "Sun, 06 Nov 1994 08:49:37 GMT", whatever the locale (RFC 9110, 5.6.7).
std::string http_date(std::time_t t) {
  constexpr std::array kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  std::tm tm{};
  gmtime_r(&t, &tm);
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[static_cast<size_t>(tm.tm_wday)], tm.tm_mday,
                     kMonths[static_cast<size_t>(tm.tm_mon)], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  const auto low = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return low(x) == low(y); });
}

bool is_framing(std::string_view name) {
  for (const char* ours : {"content-length", "transfer-encoding", "connection", "date"}) {
    if (equals_ignoring_case(name, ours)) return true;
  }
  return false;
}

bool has_header(const Headers& headers, std::string_view name) {
  return std::any_of(headers.begin(), headers.end(), [&](auto& h) { return equals_ignoring_case(h.first, name); });
}

void append_clean(std::string& out, std::string_view s) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  const size_t from = out.size();
  out += s;
  std::replace_if(out.begin() + static_cast<std::ptrdiff_t>(from), out.end(), is_control, ' ');
}

void append_header(std::string& out, std::string_view name, std::string_view value) {
  append_clean(out, name);
  out += ": ";
  append_clean(out, value);
  out += "\r\n";
}

// Up to the first header that depends on the kind of answer.
std::string begin_head(int status, const Headers& headers, const Framing& framing) {
  std::string out = fmt::format("HTTP/1.1 {} {}\r\n", status, reason_phrase(status));
  append_header(out, "Date", http_date(std::time(nullptr)));
  for (const auto& [name, value] : headers) {
    if (!is_framing(name)) append_header(out, name, value);
  }
  if (!framing.id.empty() && !has_header(headers, "x-request-id")) append_header(out, "X-Request-Id", framing.id);
  for (const auto& [name, value] : framing.extra) append_header(out, name, value);
  if (!framing.keep_alive) append_header(out, "Connection", "close");
  if (framing.keep_alive && framing.minor_version == 0) append_header(out, "Connection", "keep-alive");
  return out;
}

void append_chunk(std::string& out, std::string_view data, const Framing& framing) {
  if (framing.head) return;
  if (!framing.chunked()) {
    out += data;
    return;
  }
  std::array<char, 2 * sizeof(size_t)> digits{};
  const auto size = std::to_chars(digits.data(), digits.data() + digits.size(), data.size(), 16);
  out.append(digits.data(), size.ptr);
  out += "\r\n";
  out += data;
  out += "\r\n";
}

// One line of an event: a field has none of the characters that end it.
void append_field(std::string& out, std::string_view name, std::string_view value) {
  out += name;
  out += ": ";
  append_clean(out, value);
  out += '\n';
}

}  // namespace

const char* reason_phrase(int status) { return words_of(status).reason; }
const char* error_code_word(int status) { return words_of(status).code; }

std::string format_response(const HttpResponse& response, const Framing& framing) {
  std::string out = begin_head(response.status, response.headers, framing);
  const bool bodyless = response.status == 204 || response.status == 304 || response.status < 200;
  if (!bodyless) {
    if (!response.content_type.empty()) append_header(out, "Content-Type", response.content_type);
    append_header(out, "Content-Length", std::to_string(response.body.size()));
  }
  out += "\r\n";
  if (!bodyless && !framing.head) out += response.body;
  return out;
}

std::string format_stream_head(const Headers& headers, const Framing& framing) {
  std::string out = begin_head(200, headers, framing);
  append_header(out, "Content-Type", "text/event-stream; charset=utf-8");
  if (!has_header(headers, "cache-control")) append_header(out, "Cache-Control", "no-cache");
  append_header(out, "X-Accel-Buffering", "no");  // else a proxy of nginx keeps the events back
  if (framing.chunked()) append_header(out, "Transfer-Encoding", "chunked");
  out += "\r\n";
  return out;
}

void append_event(std::string& out, const SseEvent& event, const Framing& framing) {
  static thread_local std::string block;  // an event is made for every token: its memory is kept
  block.clear();
  if (!event.id.empty()) append_field(block, "id", event.id);
  if (!event.event.empty()) append_field(block, "event", event.event);
  std::string_view rest = event.data;
  for (;;) {  // a line break is \n, \r or \r\n
    const size_t end = std::min(rest.find_first_of("\r\n"), rest.size());
    block += "data: ";
    block += rest.substr(0, end);
    block += '\n';
    if (end == rest.size()) break;
    rest.remove_prefix(rest.substr(end, 2) == "\r\n" ? end + 2 : end + 1);
  }
  block += '\n';
  append_chunk(out, block, framing);
}

void append_heartbeat(std::string& out, const Framing& framing) { append_chunk(out, ": still here\n\n", framing); }

void append_stream_end(std::string& out, const Framing& framing) {
  if (framing.chunked() && !framing.head) out += "0\r\n\r\n";
}

HttpResponse error_response(const ServeError& error) {
  const nlohmann::ordered_json body = {
      {"error",
       {{"message", error.what()},
        {"type", error.type()},
        {"param", error.param() ? nlohmann::ordered_json(*error.param()) : nlohmann::ordered_json(nullptr)},
        {"code", error.code()}}}};
  HttpResponse out;
  out.status = error.status();
  out.body = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (error.retry_after()) out.headers.emplace_back("Retry-After", std::to_string(*error.retry_after()));
  return out;
}

}  // namespace krait::serve
