#include "krait/serve/http/request_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "krait/serve/http/response.h"
#include "krait/serve/http/target.h"

namespace krait::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

// Gives `bytes` in pieces, as a connection would; what is not used is given again.
size_t feed(RequestParser& parser, const std::string& bytes, size_t piece) {
  std::string waiting;
  size_t used = 0;
  for (size_t at = 0; at < bytes.size() && !parser.done() && !parser.problem(); at += piece) {
    waiting += bytes.substr(at, piece);
    const size_t n = parser.put(waiting);
    used += n;
    waiting.erase(0, n);
  }
  return used;
}

int status_of(const std::string& bytes) {
  int status = -1;
  for (const size_t piece : {size_t{1}, size_t{7}, bytes.size()}) {
    RequestParser parser(1000, 100);
    feed(parser, bytes, piece);
    const int now = parser.problem() ? parser.problem()->status : parser.done() ? 200 : 0;
    EXPECT_TRUE(status < 0 || now == status) << now << ", " << status << " in pieces of " << piece << ": " << bytes;
    status = now;
  }
  return status;
}
int status_with(const std::string& headers, const std::string& version = "1.1") {
  return status_of("POST /x HTTP/" + version + "\r\n" + headers + "\r\n");
}

TEST(RequestParser, ARequestInPieces) {
  const std::string bytes =
      "\r\nPOST /a%2Fb?q=%C3%A9 HTTP/1.1\r\nHost: x:80\r\nX-Two: 1\r\nx-two:  2 \r\nTransfer-Encoding: Chunked\r\n\r\n"
      "3\r\nabc\r\n1\r\nd\r\n0\r\nHost: trailer\r\n\r\n";
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    RequestParser parser(1000, 100);
    EXPECT_EQ(feed(parser, bytes, piece), bytes.size());
    ASSERT_TRUE(parser.done()) << piece;
    EXPECT_TRUE(parser.keep_alive());
    const HttpRequest r = parser.take();
    EXPECT_EQ(r.method, "POST");
    EXPECT_EQ(r.path, "/a/b");
    EXPECT_THAT(r.query, UnorderedElementsAre(Pair("q", "\xC3\xA9")));
    EXPECT_THAT(r.headers, UnorderedElementsAre(Pair("host", "x:80"), Pair("x-two", "1"), Pair("x-two", "2"),
                                                Pair("transfer-encoding", "Chunked")));
    EXPECT_EQ(r.body, "abcd");
  }
}

TEST(RequestParser, TheNextRequestIsLeft) {
  const std::string first = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", next = "GET / HTTP/1.1\r\n";
  RequestParser parser(1000, 100);
  EXPECT_EQ(parser.put(first + next), first.size());
  EXPECT_TRUE(parser.done());
}

TEST(RequestParser, FramingThatCanBeReadInTwoWays) {
  EXPECT_EQ(status_with("Host: x\r\nContent-Length: 0\r\n"), 200);
  EXPECT_EQ(status_with("Host: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nContent-Length: 0, 0\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nContent-Length: +1\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nContent-Length: -1\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nContent-Length: 0x1\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nContent-Length:\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nContent-Length: 18446744073709551617\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nTransfer-Encoding: xchunked\r\nContent-Length: 5\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nTransfer-Encoding: gzip, chunked\r\n"), 501);
  EXPECT_EQ(status_with("Host: x\r\nTransfer-Encoding: chunked, gzip\r\n"), 501);
  EXPECT_EQ(status_with("Host: x\r\nTransfer-Encoding: \x0b"
                        "chunked\r\n"),
            400);
  EXPECT_EQ(status_with("Host: x\r\nTransfer-Encoding : chunked\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nTransfer-Encoding: chunked\r\n", "1.0"), 400);
  EXPECT_EQ(status_with("Host: x\nTransfer-Encoding: chunked\r\n"), 400);  // a bare line feed
  const std::string chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(status_of(chunked + "0\r\n\r\n"), 200);
  for (const char* bad : {"x\r\n\r\n", "-1\r\n\r\n", "1 \r\na\r\n", "1\r\nab\r\n0\r\n\r\n", "1\na\r\n0\r\n\r\n",
                          "ffffffffffffffffff\r\n", "0x1\r\na\r\n0\r\n\r\n"}) {
    EXPECT_GE(status_of(chunked + bad), 400) << bad;
  }
}

TEST(RequestParser, HeadersThatMustBeSingleOrSane) {
  EXPECT_EQ(status_with(""), 400);
  EXPECT_EQ(status_with("", "1.0"), 200);
  EXPECT_EQ(status_with("Host: a\r\nHost: b\r\n"), 400);
  EXPECT_EQ(status_with("Host: a\r\nHost: b\r\n", "1.0"), 400);
  EXPECT_EQ(status_with("Host: a/b\r\n"), 400);
  EXPECT_EQ(status_with("Host: a b\r\n"), 400);
  EXPECT_EQ(status_with("Host: u@a\r\n"), 400);
  EXPECT_EQ(status_with("Host: [::1]:8080\r\n"), 200);
  EXPECT_EQ(status_with("Host: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nNo colon\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\n: no name\r\n"), 400);
  EXPECT_EQ(status_with("Host: x\r\nExpect: 200-ok\r\n"), 417);
  EXPECT_EQ(status_with("Host: x\r\nA: " + std::string(900, 'a') + "\r\n"), 200);
  EXPECT_EQ(status_with("Host: x\r\nA: " + std::string(1000, 'a') + "\r\n"), 431);
  EXPECT_EQ(status_with("Host: x\r\n", "1.2"), 505);
  EXPECT_EQ(status_of("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
  EXPECT_EQ(status_of("GET / HTCPCP/1.0\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET  / HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(status_of("G(T / HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(status_of("CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
}

TEST(Target, PathsAndQueries) {
  HttpRequest r;
  r.method = "GET";
  for (const char* good :
       {"/", "/a//b", "/a.b/..c/...", "/%7E?", "/a?b=../..&c", "/v1/models/org%2Fmodel", "/?=&&a==b"}) {
    EXPECT_EQ(parse_target(good, r), nullptr) << good;
  }
  EXPECT_EQ(parse_target("/%e2%82%ac?a=1&b&a=%3D+", r), nullptr);
  EXPECT_EQ(r.path, "/\xE2\x82\xAC");
  ASSERT_EQ(r.query.size(), 3u);
  EXPECT_EQ(r.query[2].second, "= ");
  for (const char* bad : {"",        "*",           "a",           "http://h/", "h:80",   "/..",     "/.",
                          "/a/../b", "/a/%2e%2E/b", "/a%2f..%2fb", "/..\\a",    "/a\\..", "/%5c..",  "/%00",
                          "/a%0ab",  "/%7f",        "/%",          "/%4",       "/%zz",   "/%ff",    "/%c0%ae",
                          "/a b",    "/a#b",        "/\x80",       "/\x01",     "/?%",    "/?a=%00", "/?%ff"}) {
    EXPECT_NE(parse_target(bad, r), nullptr) << bad;
  }
}

TEST(Response, EventsCannotForgeFields) {
  std::string out;
  Framing plain;
  plain.minor_version = 0;
  append_event(out, {"1\n2", "e\r\ndata: x", "a\rb\r\nc\n"}, plain);
  EXPECT_EQ(out, "id: 1 2\nevent: e  data: x\ndata: a\ndata: b\ndata: c\ndata: \n\n");
}

TEST(Response, NoBodyWhereNoneMayBe) {
  EXPECT_THAT(format_response({204, "text/plain", "x", {}}, {}), ::testing::Not(HasSubstr("Content-")));
  EXPECT_THAT(format_response({418, "text/plain", "x", {}}, {}), HasSubstr("HTTP/1.1 418 "));
}

}  // namespace
}  // namespace krait::serve
