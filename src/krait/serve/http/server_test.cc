#include "krait/serve/http/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>

#include <string>
#include <vector>

#include "krait/core/error.h"
#include "krait/serve/http/server_fixture.h"

namespace krait::serve {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using testing::eventually;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Reply;
using testing::TestClient;

class HttpServerTest : public testing::ServerFixture {};

TEST_F(HttpServerTest, AnswersAndKeepsTheConnection) {
  start();
  TestClient c = client();
  for (int i = 0; i < 3; ++i) {
    const Reply r = c.get("/a%20b?x=1&y=%2B+");
    EXPECT_EQ(r.status, 200);
    EXPECT_EQ(r.body, "GET /a b x=1;y=+ ; ");
    EXPECT_EQ(r.headers.count("connection"), 0u);
    EXPECT_FALSE(r.headers.at("x-request-id").empty());
  }
  EXPECT_EQ(server_->stats().accepted, 1);
  const Reply last = c.get("/", "Connection: close\r\nX-Request-Id: my.id-1\r\n");
  EXPECT_EQ(last.headers.at("connection"), "close");
  EXPECT_EQ(last.headers.at("x-request-id"), "my.id-1");
  EXPECT_TRUE(c.wait_for_end());
  EXPECT_THAT(client().get("/", "X-Request-Id: <b>\r\n").headers.at("x-request-id"), HasSubstr("req_"));
}

TEST_F(HttpServerTest, PipelinedRequestsAreAnsweredInOrderOneAtATime) {
  start();
  TestClient c = client();
  c.send(
      "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n"
      "POST /second HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\r\n"
      "GET /third HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto first = held();
  EXPECT_FALSE(c.receive(50));  // nobody overtakes
  first->respond({200, "text/plain", "first", {}});
  EXPECT_EQ(c.reply().body, "first");
  EXPECT_EQ(c.reply().body, "POST /second  abc");
  EXPECT_EQ(c.reply().body, "GET /third  ");
}

TEST_F(HttpServerTest, MethodsArePassedOnAndHeadHasNoBody) {
  start();
  TestClient c = client();
  c.send(
      "HEAD /x HTTP/1.1\r\nHost: x\r\n\r\nOPTIONS /y HTTP/1.1\r\nHost: x\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
  const Reply head = c.reply(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("content-length"), "9");
  EXPECT_EQ(c.reply().body, "OPTIONS /y  ");
  EXPECT_EQ(c.reply().body, "OPTIONS /  ");
}

TEST_F(HttpServerTest, HttpOneZero) {
  start();
  TestClient c = client();
  c.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(c.reply().headers.at("connection"), "keep-alive");
  c.send("GET /b HTTP/1.0\r\n\r\n");
  const Reply r = c.reply();
  EXPECT_EQ(r.body, "GET /b  ");
  EXPECT_EQ(r.headers.at("connection"), "close");
  EXPECT_TRUE(c.wait_for_end());
}

TEST_F(HttpServerTest, ChunkedBodyAndExpectContinue) {
  start();
  TestClient c = client();
  c.send("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(c.reply().status, 100);
  c.send("3\r\nabc\r\n4;ext=1\r\ndefg\r\n");
  c.send("0\r\nX-Trailer: 1\r\n\r\n");
  EXPECT_EQ(c.reply().body, "POST /a  abcdefg");
  c.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi");  // did not wait
  EXPECT_EQ(c.reply().body, "POST /a  hi");
}

// A refused request ends its connection, after an answer in OpenAI's form.
TEST_F(HttpServerTest, MalformedRequestsAreRefused) {
  start();
  const std::vector<std::pair<std::string, int>> cases = {
      {"GET / HTTP/1.1\r\n\r\n", 400},  // no Host
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505},
      {"nonsense\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: x\r\nA: b" + std::string(1, 0) + "c\r\n\r\n", 400},
      {"\x16\x03\x01\x02garbage of another protocol\r\n\r\n", 400},
  };
  for (const auto& [bytes, status] : cases) {
    TestClient c = client();
    c.send(bytes);
    Reply r = c.reply();
    EXPECT_EQ(r.status, status) << bytes;
    EXPECT_TRUE(r.complete);
    EXPECT_EQ(r.headers["content-type"], "application/json");
    EXPECT_EQ(r.headers["connection"], "close");
    EXPECT_THAT(r.body, HasSubstr(R"({"error":{"message":)"));
    EXPECT_TRUE(c.wait_for_end()) << bytes;
  }
  EXPECT_EQ(server_->stats().malformed, static_cast<int64_t>(cases.size()));
  EXPECT_EQ(client().get("/").status, 200);
}

TEST_F(HttpServerTest, LimitsOfHeaderAndBody) {
  HttpOptions options;
  options.max_header = 1000;
  options.max_body = 100;
  start(options);
  EXPECT_EQ(client().get("/", "A: " + std::string(800, 'a') + "\r\n").status, 200);
  EXPECT_EQ(client().get("/", "A: " + std::string(1000, 'a') + "\r\n").status, 431);
  EXPECT_EQ(ask("GET /" + std::string(2000, 'a')).status, 431);  // without an end
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(ask(head + "Content-Length: 100\r\n\r\n" + std::string(100, 'b')).status, 200);
  EXPECT_EQ(ask(head + "Content-Length: 101\r\n\r\n").status, 413);
  EXPECT_EQ(ask(head + "Content-Length: 101\r\nExpect: 100-continue\r\n\r\n").status, 413);  // no 100 before it
  EXPECT_EQ(ask(head + "Content-Length: 99999999999999999999999\r\n\r\n").status, 400);
  EXPECT_EQ(ask(head + "Transfer-Encoding: chunked\r\n\r\n65\r\nx").status, 413);
  EXPECT_EQ(ask(head + "Transfer-Encoding: chunked\r\n\r\n1;" + std::string(2000, 'e')).status, 400);
  // A client that sends all of a body that was refused still reads why.
  const Reply r = ask(head + "Content-Length: 3000000\r\n\r\n" + std::string(3'000'000, 'b'));
  EXPECT_EQ(r.status, 413);
  EXPECT_THAT(r.body, HasSubstr("request_too_large"));
}

TEST_F(HttpServerTest, TimeLimits) {
  HttpOptions options;
  options.header_timeout = 100ms;
  options.body_timeout = 100ms;
  options.idle_timeout = 800ms;
  start(options);
  EXPECT_EQ(ask("GET / HTTP/1.1\r\nHo").status, 408);
  EXPECT_EQ(ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc").status, 408);
  EXPECT_EQ(server_->stats().timed_out, 2);
  TestClient idle = client();
  EXPECT_EQ(idle.get("/").status, 200);
  EXPECT_FALSE(idle.receive(150));
  EXPECT_EQ(idle.get("/").status, 200);
  EXPECT_TRUE(idle.wait_for_end(2000));
  EXPECT_TRUE(idle.buffered().empty());  // closed without a word
  TestClient silent = client();
  EXPECT_TRUE(silent.wait_for_end(2000));
  // A trickle does not move the limit.
  TestClient slow = client();
  for (const char c : std::string("GET / HTTP/1.1\r\n")) {
    slow.send(std::string(1, c));
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_EQ(slow.reply().status, 408);
}

TEST_F(HttpServerTest, ConnectionsBeyondTheLimitGet503) {
  HttpOptions options;
  options.max_connections = 2;
  start(options);
  {
    TestClient a = client(), b = client();
    EXPECT_EQ(a.get("/").status, 200);
    EXPECT_EQ(b.get("/").status, 200);
    TestClient c = client();
    const Reply r = c.get("/");
    EXPECT_EQ(r.status, 503);
    EXPECT_EQ(r.headers.count("retry-after"), 1u);
    EXPECT_TRUE(c.wait_for_end());
    EXPECT_EQ(server_->stats().refused, 1);
    EXPECT_EQ(a.get("/").status, 200);
  }
  EXPECT_TRUE(eventually([&] { return server_->stats().connections == 0; }));
  EXPECT_EQ(client().get("/").status, 200);
}

// Trap G4: a failure is never an empty 200.
TEST_F(HttpServerTest, TrapG4_FailuresHaveAStatusAndAMessage) {
  start();
  TestClient c = client();
  const Reply busy = c.get("/throw");
  EXPECT_EQ(busy.status, 409);
  EXPECT_EQ(busy.headers.at("retry-after"), "3");
  EXPECT_EQ(
      busy.body,
      R"({"error":{"message":"busy","type":"conflict_error","param":"conversation_id","code":"conversation_busy"}})");
  for (const char* path : {"/bug", "/posted_bug", "/drop"}) {
    const Reply r = c.get(path);
    EXPECT_EQ(r.status, 500) << path;
    EXPECT_THAT(r.body, HasSubstr("server_error"));
    EXPECT_THAT(r.body, Not(HasSubstr("secret")));
  }
  EXPECT_THAT(failures(), ElementsAre("secret", "posted"));
  EXPECT_EQ(c.get("/").status, 200);  // trap G8: one error, and the next request succeeds
}

TEST_F(HttpServerTest, AnAnswerIsGivenOnce) {
  start();
  TestClient c = client();
  c.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto x = held();
  EXPECT_THROW(x->send({}), Error);
  EXPECT_THROW(x->end_stream(), Error);
  x->respond({});
  EXPECT_THROW(x->respond({}), Error);
  EXPECT_THROW(x->begin_stream({}), Error);
  EXPECT_EQ(c.reply().status, 200);
}

TEST_F(HttpServerTest, HeadersOfAnswersCannotBeSplit) {
  start();
  Reply r = client().get("/split");
  EXPECT_EQ(r.body, "ok");
  EXPECT_EQ(r.headers.count("x-injected"), 0u);
  EXPECT_EQ(r.headers["x-evil"], "a  X-Injected: 1");
  EXPECT_EQ(r.headers["content-length"], "2");
}

TEST_F(HttpServerTest, OwnErrorBody) {
  HttpOptions options;
  options.error_body = [](int status, const std::string&) { return "{\"s\":" + std::to_string(status) + "}"; };
  start(options);
  EXPECT_EQ(ask("GET x HTTP/1.1\r\n\r\n").body, "{\"s\":400}");
  EXPECT_EQ(client().get("/drop").body, "{\"s\":500}");
}

TEST_F(HttpServerTest, BigAnswers) {
  start();
  TestClient c = client();
  for (int i = 0; i < 2; ++i) {
    const Reply r = c.get("/big");
    EXPECT_TRUE(r.complete);
    EXPECT_EQ(r.body, std::string(size_t{8} << 20, 'b'));
  }
}

TEST_F(HttpServerTest, LongBodiesShareALimitAndShortOnesAreServed) {
  HttpOptions options;
  options.max_held = size_t{1} << 20;
  start(options);
  const auto head = [](const std::string& path) {
    return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 800000\r\n\r\n";
  };
  TestClient first = client(), half = client(), other = client();
  ASSERT_TRUE(first.send(head("/hold") + std::string(800'000, 'x')));
  held();
  half.send(head("/x") + std::string(600'000, 'x'));
  const Reply refused = half.reply();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
  EXPECT_EQ(other.get("/x").status, 200);
  first.close();
  release();
  ASSERT_TRUE(other.send(head("/split") + std::string(800'000, 'x')));  // all is given back
  EXPECT_EQ(other.reply().status, 200);
}

TEST_F(HttpServerTest, LongAnswersThatNobodyReadsShareALimit) {
  HttpOptions options;
  options.max_held = size_t{10} << 20;
  options.write_timeout = 300ms;
  start(options);
  TestClient slow = client(4096), other = client();
  ASSERT_TRUE(slow.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n"));  // 8 MiB
  ASSERT_TRUE(slow.wait_for("HTTP/1.1 200"));
  EXPECT_EQ(other.get("/big").status, 503);
  EXPECT_EQ(other.get("/x").status, 200);
  ASSERT_TRUE(eventually([&] { return server_->stats().cut_off == 1; }));
  EXPECT_TRUE(eventually([&] { return other.get("/big").status == 200; }));
}

TEST_F(HttpServerTest, SeveralThreads) {
  HttpOptions options;
  options.threads = 3;
  start(options);
  std::vector<std::thread> clients;
  std::atomic<int> good = 0;
  for (int t = 0; t < 8; ++t) {
    clients.emplace_back([&] {
      TestClient c = client();
      for (int i = 0; i < 50; ++i) good += c.get("/" + std::to_string(i)).body == "GET /" + std::to_string(i) + "  ";
    });
  }
  for (auto& t : clients) t.join();
  EXPECT_EQ(good, 400);
}

// The server's end of a connection, found among this process's files.
int other_end(const TestClient& c) {
  sockaddr_in own{}, peer{};
  socklen_t n = sizeof own;
  getsockname(c.fd(), reinterpret_cast<sockaddr*>(&own), &n);
  for (int fd = 3; fd < 1000; ++fd) {
    n = sizeof peer;
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &n) == 0 && peer.sin_port == own.sin_port) return fd;
  }
  return -1;
}

// A peer that vanished without a word cannot be made here; what notices it is an option of the socket.
TEST_F(HttpServerTest, HalfOpenConnectionsAreProbedAndNothingIsDelayed) {
  start();
  TestClient c = client();
  EXPECT_EQ(c.get("/").status, 200);
  const int fd = other_end(c);
  ASSERT_GE(fd, 0);
  const auto option = [fd](int level, int name) {
    int value = 0;
    socklen_t n = sizeof value;
    getsockopt(fd, level, name, &value, &n);
    return value;
  };
  EXPECT_EQ(option(SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_EQ(option(IPPROTO_TCP, TCP_KEEPIDLE), 30);
  EXPECT_EQ(option(IPPROTO_TCP, TCP_USER_TIMEOUT), 30'000);
  EXPECT_EQ(option(IPPROTO_TCP, TCP_NODELAY), 1);
}

TEST_F(HttpServerTest, AllAddressesOfBothKinds) {
  HttpOptions options;
  options.host = "::";
  try {
    start(options);
  } catch (const Error& e) {
    GTEST_SKIP() << e.what();
  }
  EXPECT_EQ(client().get("/").status, 200);  // by IPv4
}

TEST(HttpServer, WhatCannotBeListenedOnIsAnError) {
  HttpOptions options;
  options.port = 0;
  const HttpServer first(options, [](std::shared_ptr<Exchange>) {});
  options.port = first.port();
  EXPECT_THROW(HttpServer(options, nullptr), Error);
  options.port = 0;
  options.host = "not an address";
  EXPECT_THROW(HttpServer(options, nullptr), Error);
  options.host = "localhost";
  EXPECT_NE(HttpServer(options, nullptr).port(), 0);
}

}  // namespace
}  // namespace krait::serve
