#include "krait/serve/http/request_parser.h"

#include <algorithm>
#include <boost/beast/core/buffers_range.hpp>
#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/parser.hpp>
#include <limits>

#include "krait/serve/http/target.h"

namespace krait::serve {
namespace {

namespace http = boost::beast::http;
using boost::beast::error_code;
using boost::beast::iequals;

// A body that grows with what arrives: a length that is only announced takes no memory.
struct GrowingBody {
  using value_type = std::string;
  struct reader {
    template <bool kRequest, class Fields>
    reader(http::header<kRequest, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<uint64_t>& length, error_code& ec) {
      ec = {};
      length_ = length.value_or(0);  // below the parser's limit
    }
    template <class Buffers>
    size_t put(const Buffers& buffers, error_code& ec) {
      ec = {};
      const size_t before = body_.size();
      if (before > kGrown && length_ > body_.capacity()) body_.reserve(length_);
      for (const boost::asio::const_buffer b : boost::beast::buffers_range(buffers)) {
        body_.append(static_cast<const char*>(b.data()), b.size());
      }
      return body_.size() - before;
    }
    void finish(error_code& ec) { ec = {}; }

   private:
    static constexpr size_t kGrown = size_t{256} << 10;  // from here on in one step: growing leaves holes in the heap
    value_type& body_;
    size_t length_ = 0;
  };
};

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

// Of a host and port: nothing that could end it early somewhere else.
bool is_host(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](char c) {
    return c > 0x20 && c < 0x7F && std::string_view("/?#@\\\"<>^`{|},").find(c) == std::string_view::npos;
  });
}

}  // namespace

struct RequestParser::Impl {
  http::request_parser<GrowingBody> parser;
};

RequestParser::RequestParser(size_t max_header, size_t max_body)
    : impl_(std::make_unique<Impl>()), max_header_(max_header) {
  constexpr size_t kMost = std::numeric_limits<uint32_t>::max();
  impl_->parser.header_limit(static_cast<uint32_t>(std::min(max_header, kMost)));
  impl_->parser.body_limit(uint64_t{max_body});
}
RequestParser::~RequestParser() = default;

bool RequestParser::header_done() const { return impl_->parser.is_header_done(); }
bool RequestParser::done() const { return impl_->parser.is_done(); }
size_t RequestParser::body_size() const { return impl_->parser.get().body().size(); }

size_t RequestParser::put(std::string_view in) {
  auto& parser = impl_->parser;
  size_t used = 0;
  // Empty lines before a request: some clients end a body with one.
  while (!parser.got_some() && header_bytes_ < 4 && in.substr(used, 2) == "\r\n") {
    used += 2;
    header_bytes_ += 2;
  }
  if (!parser.got_some() && (used == in.size() || in.substr(used) == "\r")) return used;
  while (!parser.is_done() && !problem_) {
    const bool in_header = !parser.is_header_done();
    // At least five bytes of a chunked body are still to come ("0", two line ends); fewer at once can fail an assertion
    // of Beast 1.81 when the last chunk arrives byte by byte.
    if (!in_header && parser.chunked() && in.size() - used < 5) break;
    error_code ec;
    const size_t n = parser.put({in.data() + used, in.size() - used}, ec);
    used += n;
    if (in_header) header_bytes_ += n;
    const size_t waiting = in.size() - used;
    const size_t header = header_bytes_ + (parser.is_header_done() ? 0 : waiting);
    const bool too_long = in_header && header > max_header_ && (!ec || ec == http::error::need_more);
    if (ec == http::error::header_limit || too_long) {
      refuse(431, "[http] the request line and headers are longer than " + std::to_string(max_header_) + " bytes");
    } else if (ec == http::error::body_limit) {
      refuse(413, "[http] the body is longer than this server takes");
    } else if (ec == http::error::need_more) {
      // Only the line between two chunks (its extensions, trailers) can wait for more here.
      if (!in_header && waiting > max_header_) refuse(400, "[http] the line before a chunk is too long");
      break;
    } else if (ec == http::error::bad_version && in.substr(0, in.find('\r')).find(" HTTP/") != in.npos) {
      refuse(505, "[http] only HTTP/1.0 and HTTP/1.1 are spoken here");
    } else if (ec) {
      refuse(400, "[http] malformed request: " + ec.message());
    } else if (in_header && parser.is_header_done()) {
      header_complete();
    }
    if (used == in.size() && !parser.is_done() && !problem_) break;
  }
  return used;
}

void RequestParser::header_complete() {
  const auto& message = impl_->parser.get();
  minor_version_ = message.version() == 10 ? 0 : 1;
  keep_alive_ = impl_->parser.keep_alive();
  request_.method = std::string(message.method_string());
  for (const auto& field : message) {
    request_.headers.emplace_back(lower(field.name_string()), std::string(field.value()));
  }
  check_framing();
  if (problem_) return;
  if (const char* wrong = parse_target(message.target(), request_)) return refuse(400, wrong);
  if (const std::string* expect = request_.header("expect"); expect && minor_version_ == 1) {
    if (!iequals(*expect, "100-continue")) return refuse(417, "[http] only \"Expect: 100-continue\" can be met");
    expects_continue_ = !impl_->parser.is_done();
  }
}

// What two parsers could read in two ways is refused: else a request can be hidden in the body of another one.
void RequestParser::check_framing() {
  const auto count = [&](std::string_view name) {
    return std::count_if(request_.headers.begin(), request_.headers.end(), [&](auto& h) { return h.first == name; });
  };
  for (const char* name : {"host", "content-length", "transfer-encoding", "content-type", "authorization"}) {
    if (count(name) > 1) return refuse(400, std::string("[http] more than one header \"") + name + "\"");
  }
  const std::string* host = request_.header("host");
  if (!host && minor_version_ == 1) return refuse(400, "[http] HTTP/1.1 wants a header \"Host\"");
  if (host && !is_host(*host)) return refuse(400, "[http] the header \"Host\" is not a host");
  const std::string* length = request_.header("content-length");
  const std::string* coding = request_.header("transfer-encoding");
  if (length && coding) return refuse(400, "[http] both \"Content-Length\" and \"Transfer-Encoding\"");
  if (length && length->find_first_not_of("0123456789") != length->npos) {
    return refuse(400, "[http] \"Content-Length\" is not a number");
  }
  if (coding && minor_version_ == 0) return refuse(400, "[http] HTTP/1.0 has no \"Transfer-Encoding\"");
  if (coding && !iequals(*coding, "chunked")) {
    return refuse(501, "[http] the only \"Transfer-Encoding\" known here is \"chunked\"");
  }
}

HttpRequest RequestParser::take() {
  request_.body = std::move(impl_->parser.get().body());
  return std::move(request_);
}

}  // namespace krait::serve
