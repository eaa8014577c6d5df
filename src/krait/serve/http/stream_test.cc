// Streams of events, clients that go or do not read, draining and stopping.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/resource.h>

#include <fstream>
#include <string>
#include <vector>

#include "krait/serve/http/server_fixture.h"

namespace krait::serve {
namespace {

using namespace std::chrono_literals;
using testing::eventually;
using ::testing::HasSubstr;
using testing::Reply;
using testing::TestClient;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

class HttpStreamTest : public testing::ServerFixture {};

TEST_F(HttpStreamTest, EventsArriveAtOnceAndTheConnectionIsKept) {
  start();
  TestClient c = client();
  c.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto x = held();
  EXPECT_TRUE(x->send({"7", "delta", "a\nb"}));
  EXPECT_TRUE(c.wait_for("id: 7\nevent: delta\ndata: a\ndata: b\n\n"));
  EXPECT_EQ(server_->stats().streams, 1);
  EXPECT_TRUE(x->send({"", "", "[DONE]"}));
  x->end_stream();
  Reply r = c.reply();
  EXPECT_TRUE(r.complete);
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.headers["content-type"], "text/event-stream; charset=utf-8");
  EXPECT_EQ(r.headers["x-test"], "1");
  EXPECT_EQ(r.body, "id: 7\nevent: delta\ndata: a\ndata: b\n\ndata: [DONE]\n\n");
  EXPECT_EQ(c.reply().body, "GET /next  ");
  EXPECT_EQ(server_->stats().streams, 0);
  EXPECT_EQ(gone_, 0);
}

TEST_F(HttpStreamTest, HttpOneZeroHasNoChunks) {
  start();
  TestClient c = client();
  c.send("GET /stream HTTP/1.0\r\n\r\n");
  held()->send({"", "", "x"});
  held()->end_stream();
  const Reply r = c.reply();
  EXPECT_EQ(r.body, "data: x\n\n");
  EXPECT_TRUE(r.complete);
}

TEST_F(HttpStreamTest, HeadOfAStreamHasNoEvents) {
  start();
  TestClient c = client();
  c.send("HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(held()->send({"", "", "x"}));
  held()->end_stream();
  EXPECT_EQ(c.reply(true).status, 200);
  EXPECT_EQ(c.reply().body, "GET /next  ");
}

TEST_F(HttpStreamTest, Heartbeats) {
  HttpOptions options;
  options.heartbeat = 30ms;
  start(options);
  TestClient c = open_stream();
  EXPECT_TRUE(c.wait_for(": still here\n\n"));
  held()->end_stream();
  EXPECT_TRUE(c.reply().complete);
}

TEST_F(HttpStreamTest, HeartbeatsComeBehindTheLastEvent) {
  HttpOptions options;
  options.heartbeat = 50ms;
  start(options);
  TestClient c = open_stream();
  const auto x = held();
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(x->send({"", "", "event " + std::to_string(i)}));
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_TRUE(c.wait_for("data: event 19\n\n"));
  EXPECT_TRUE(c.wait_for(": still here\n\n"));
  EXPECT_TRUE(x->send({"", "", "another"}));
  x->end_stream();
  EXPECT_TRUE(c.reply().complete);
}

// Some events go out at once, others wait for room in the kernel's buffer: none is lost, none comes twice.
TEST_F(HttpStreamTest, AReaderThatPausesGetsAllEventsInOrder) {
  start();
  TestClient c = open_stream(4096);
  const auto x = held();
  std::string want;
  for (int i = 0; i < 3000; ++i) {
    const std::string data = std::to_string(i) + std::string(static_cast<size_t>(i % 7) * 100, 'x');
    ASSERT_TRUE(x->send({"", "", data}));
    want += "data: " + data + "\n\n";
    if (i % 100 == 0) std::this_thread::sleep_for(1ms);
  }
  x->end_stream();
  const Reply r = c.reply();
  EXPECT_TRUE(r.complete);
  EXPECT_TRUE(r.body == want) << r.body.size() << " bytes instead of " << want.size();
}

TEST_F(HttpStreamTest, AClientThatGoesIsNoticedWhileItsAnswerIsMade) {
  start();
  for (const std::string path : {"/hold", "/stream"}) {
    for (const bool hard : {false, true}) {
      const int before = gone_;
      const size_t i = held_count();
      TestClient c = client();
      c.send("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
      const auto x = held(i);
      EXPECT_FALSE(x->gone());
      hard ? c.reset() : c.close();
      EXPECT_TRUE(eventually([&] { return gone_ == before + 1; })) << path << hard;
      EXPECT_TRUE(x->gone());
      if (path == "/stream") {
        EXPECT_FALSE(x->send({"", "", "late"}));
        x->end_stream();
      } else {
        x->respond({});  // no effect
      }
      bool told = false, posted = false;  // by the same thread, so in this order
      x->on_gone([&] { told = true; });
      std::atomic<bool> done = false;
      x->post([&] { posted = true, done = true; });
      EXPECT_TRUE(eventually([&] { return done.load(); }));
      EXPECT_TRUE(posted);
      EXPECT_FALSE(told);  // answered before
    }
  }
  EXPECT_TRUE(eventually([&] { return server_->stats().connections == 0; }));
  EXPECT_EQ(server_->stats().streams, 0);
}

TEST_F(HttpStreamTest, OnGoneAfterTheClientHasGone) {
  start();
  TestClient c = client();
  c.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto x = held();
  c.close();
  EXPECT_TRUE(eventually([&] { return x->gone(); }));
  std::atomic<bool> told = false;
  x->on_gone([&] { told = true; });
  EXPECT_TRUE(eventually([&] { return told.load(); }));
}

// While an answer is made, the next requests wait; a client that goes behind them is noticed all the same.
TEST_F(HttpStreamTest, AClientThatPipelinesAndGoesIsNoticed) {
  start();
  TestClient c = client();
  c.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\nA: " + std::string(5000, 'a') +
         "\r\n\r\n");
  held();
  c.close();
  EXPECT_TRUE(eventually([&] { return gone_ == 1; }));
}

TEST_F(HttpStreamTest, AStreamGivenUpBreaksOff) {
  start();
  for (const char* version : {"1.1", "1.0"}) {
    TestClient c = open_stream(0, version);
    held()->send({"", "", "part"});
    EXPECT_TRUE(c.wait_for("part"));
    release();
    const Reply r = c.reply();
    EXPECT_FALSE(r.complete && std::string(version) == "1.1");
    EXPECT_TRUE(eventually([&] { return server_->stats().connections == 0; }));
  }
  EXPECT_EQ(server_->stats().streams, 0);
}

TEST_F(HttpStreamTest, AReaderWhoseBacklogGrowsIsCutOffAndNobodyWaitsForIt) {
  HttpOptions options;
  options.max_backlog = 200'000;
  start(options);
  TestClient slow = open_stream(4096);
  const auto x = held();
  const SseEvent event{"", "", std::string(10'000, 's')};
  int sent = 0;
  while (x->send(event) && sent < 10'000) {
    if (++sent % 50 == 0) {
      EXPECT_EQ(client().get("/").status, 200);
    }
  }
  EXPECT_LT(sent, 10'000);
  EXPECT_TRUE(eventually([&] { return gone_ == 1; }));
  EXPECT_EQ(server_->stats().cut_off, 1);
  EXPECT_FALSE(x->send(event));
  EXPECT_TRUE(eventually([&] { return server_->stats().connections == 0; }));
}

TEST_F(HttpStreamTest, AReaderThatDoesNotReadIsCutOffInTime) {
  HttpOptions options;
  options.write_timeout = 500ms;
  start(options);
  TestClient stuck = client(4096);
  stuck.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
  TestClient stuck_stream = open_stream(4096);
  const auto x = held();
  for (int i = 0; i < 400; ++i) x->send({"", "", std::string(10'000, 's')});
  EXPECT_EQ(client().get("/").status, 200);
  EXPECT_TRUE(eventually([&] { return server_->stats().cut_off == 2; }));
  EXPECT_TRUE(eventually([&] { return server_->stats().connections == 0; }));
  EXPECT_EQ(gone_, 1);
  // One that reads slowly, but reads, gets everything.
  TestClient slow = client(4096);
  slow.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
  for (int i = 0; i < 10; ++i) {
    std::this_thread::sleep_for(100ms);
    slow.receive(100);
  }
  EXPECT_TRUE(slow.reply(false, 60'000).complete);
}

TEST_F(HttpStreamTest, PostRunsInOrderOnOneThread) {
  HttpOptions options;
  options.threads = 2;
  start(options);
  TestClient c = client();
  c.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto x = held();
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) x->post([&order, i] { order.push_back(i); });
  x->post([x, &order] { x->respond({200, "text/plain", std::to_string(order.size()), {}}); });
  EXPECT_EQ(c.reply().body, "100");
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_F(HttpStreamTest, ManyThreadsSend) {
  start();
  constexpr int kStreams = 8, kEvents = 500;
  std::vector<TestClient> clients;
  for (int i = 0; i < kStreams; ++i) clients.push_back(open_stream());
  std::vector<std::thread> engines;
  for (size_t t = 0; t < kStreams; ++t) {
    engines.emplace_back([this, t] {
      const auto x = held(t);
      for (int i = 0; i < kEvents; ++i) x->send({std::to_string(i), "", "token"});
      x->end_stream();
    });
  }
  for (auto& c : clients) {
    const Reply r = c.reply();
    EXPECT_TRUE(r.complete);
    for (int i = 0, at = 0; i < kEvents; ++i) {
      const std::string want = "id: " + std::to_string(i) + "\ndata: token\n\n";
      ASSERT_EQ(r.body.substr(static_cast<size_t>(at), want.size()), want);
      at += static_cast<int>(want.size());
    }
  }
  for (auto& t : engines) t.join();
}

TEST_F(HttpStreamTest, DrainFinishesWhatRuns) {
  start();
  TestClient stream = open_stream();
  TestClient hold = client();
  hold.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto s = held(0), h = held(1);
  TestClient idle = client();
  EXPECT_EQ(idle.get("/").status, 200);
  const uint16_t port = server_->port();
  EXPECT_FALSE(server_->drain(100ms));
  EXPECT_TRUE(idle.wait_for_end());
  EXPECT_THROW(TestClient{port}, std::runtime_error);
  EXPECT_TRUE(s->send({"", "", "still"}));
  std::thread finisher([&] {
    std::this_thread::sleep_for(50ms);
    s->end_stream();
    h->respond({200, "text/plain", "held", {}});
  });
  std::thread readers([&] {
    EXPECT_THAT(stream.reply().body, HasSubstr("still"));
    stream.close();
    const Reply r = hold.reply();
    EXPECT_EQ(r.body, "held");
    EXPECT_EQ(r.headers.at("connection"), "close");
    hold.close();
  });
  EXPECT_TRUE(server_->drain(10s));
  finisher.join();
  readers.join();
  EXPECT_EQ(gone_, 0);
}

TEST_F(HttpStreamTest, StopClosesAllAndHeldExchangesStayHarmless) {
  start();
  TestClient stream = open_stream();
  TestClient hold = client();
  hold.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto s = held(0), h = held(1);
  server_->stop();
  EXPECT_EQ(gone_, 2);
  EXPECT_TRUE(stream.wait_for_end());
  EXPECT_TRUE(hold.wait_for_end());
  server_.reset();
  EXPECT_FALSE(s->send({"", "", "late"}));
  s->end_stream();
  h->post([] { ADD_FAILURE() << "ran after the end"; });
  h->respond({});
}

TEST_F(HttpStreamTest, StopWhileEverythingIsBusy) {
  for (int round = 0; round < 20; ++round) {
    start();
    std::vector<TestClient> clients;
    for (int i = 0; i < 4; ++i) clients.push_back(open_stream());
    std::atomic<bool> end = false;
    std::thread engine([&] {
      while (!end) {
        for (size_t i = 0; i < 4; ++i) {
          const auto x = held(i);
          x->send({"", "", "token"});
          x->post([] {});
        }
      }
    });
    std::this_thread::sleep_for(std::chrono::microseconds(round * 200));
    server_->stop();
    end = true;
    engine.join();
    EXPECT_EQ(server_->stats().connections, 0);
    EXPECT_EQ(server_->stats().streams, 0);
    TearDown();
  }
}

int64_t resident_bytes() {
  std::ifstream f("/proc/self/statm");
  int64_t size = 0, resident = 0;
  f >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// A thousand streams that wait for their first event: 30 MB at most, the exchanges that a service would hold included.
TEST_F(HttpStreamTest, AThousandIdleStreamsAreCheap) {
  constexpr int kStreams = 1000;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < 3 * kStreams) GTEST_SKIP() << "only " << limit.rlim_max << " files can be open";
  limit.rlim_cur = std::max<rlim_t>(limit.rlim_cur, 3 * kStreams);
  setrlimit(RLIMIT_NOFILE, &limit);
  HttpOptions options;
  options.heartbeat = 500ms;
  start(options);
  for (int i = 0; i < 3; ++i) client().get("/");
  std::vector<TestClient> clients;
  clients.reserve(kStreams);
  malloc_trim(0);  // what other tests left must not hide what this one takes
  const int64_t before = resident_bytes();
  for (int i = 0; i < kStreams; ++i) clients.push_back(open_stream());
  EXPECT_TRUE(eventually([&] { return server_->stats().streams == kStreams; }));
  for (auto& c : clients) EXPECT_TRUE(c.wait_for("still here"));
  const int64_t extra = resident_bytes() - before;
  RecordProperty("bytes_of_a_stream", static_cast<int>(extra / kStreams));
  std::printf("%d idle streams: %.1f MB\n", kStreams, static_cast<double>(extra) / 1e6);
  EXPECT_TRUE(kSanitized || extra < 30'000'000);
  for (size_t i = 0; i < kStreams; ++i) held(i)->send({"", "", "end"}), held(i)->end_stream();
  for (auto& c : clients) EXPECT_TRUE(c.reply().complete);
}

}  // namespace
}  // namespace krait::serve
