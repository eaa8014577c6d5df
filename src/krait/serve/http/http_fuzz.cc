// Any bytes as a connection's requests: refused, or the same requests however the bytes are cut, with paths and headers
// that nothing behind can read in another way.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "krait/serve/http/request_parser.h"

namespace {

void check(bool good) {
  if (!good) std::abort();
}

void check_request(const krait::serve::HttpRequest& r) {
  check(!r.method.empty() && !r.path.empty() && r.path[0] == '/');
  for (const char c : r.path) check(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F);
  check((r.path + "/").find("/../") == std::string::npos && (r.path + "/").find("/./") == std::string::npos);
  for (const auto& [name, value] : r.headers) {
    check(!name.empty());
    check(name.find_first_of(std::string_view("\r\n\0: ", 5)) == std::string::npos);
    check(value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos);
  }
  check(!(r.header("content-length") && r.header("transfer-encoding")));
  check(r.body.size() <= 1000);
}

// The requests up to a problem or the end, as text: for comparison. (What is refused at once may, in pieces, be waited
// on for its end first.)
std::string read_all(std::string_view bytes, size_t piece) {
  std::string out, waiting;
  auto parser = std::make_unique<krait::serve::RequestParser>(400, 1000);
  for (size_t at = 0; at < bytes.size(); at += piece) {
    waiting += bytes.substr(at, piece);
    for (;;) {
      const size_t n = parser->put(waiting);
      check(n <= waiting.size());
      waiting.erase(0, n);
      if (parser->problem()) return out;
      if (!parser->done()) break;
      const auto request = parser->take();
      check_request(request);
      out += request.method + " " + request.path + " " + request.body + "\n";
      parser = std::make_unique<krait::serve::RequestParser>(400, 1000);
      if (waiting.empty()) break;
    }
    check(waiting.size() <= 400 + piece);
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string whole = read_all(bytes, size + 1);
  check(whole == read_all(bytes, 1));
  check(whole == read_all(bytes, 13));
  return 0;
}
