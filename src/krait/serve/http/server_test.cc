#include "krait/serve/http/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "krait/core/error.h"
#include "krait/serve/http/test_client.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

using namespace std::chrono_literals;
using testing::Reply;
using testing::TestClient;

bool eventually(const std::function<bool()>& f, std::chrono::milliseconds limit = 5s) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!f()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

// Routes for tests; exchanges of "/hold" and "/stream" wait in `held` for what the test does with them.
class HttpServerTest : public ::testing::Test {
 protected:
  void start(HttpOptions options = {}) {
    options.port = 0;
    server_ = std::make_unique<HttpServer>(options, [this](std::shared_ptr<Exchange> x) { handle(std::move(x)); });
    server_->start();
  }
  void TearDown() override {
    held_.clear();
    server_.reset();
  }

  void handle(std::shared_ptr<Exchange> x) {
    const HttpRequest& r = x->request();
    if (r.path == "/hold" || r.path == "/stream") {
      x->on_gone([this] { ++gone_; });
      if (r.path == "/stream") x->begin_stream({{"X-Test", "1"}});
      const std::lock_guard lock(mutex_);
      held_.push_back(std::move(x));
    } else if (r.path == "/throw") {
      throw ServeError(409, "conversation_busy", "busy", "conversation_id").after(3);
    } else if (r.path == "/bug") {
      throw std::runtime_error("secret");
    } else if (r.path == "/drop") {
    } else if (r.path == "/big") {
      x->respond({200, "text/plain", std::string(size_t{8} << 20, 'b'), {}});
    } else if (r.path == "/split") {
      x->respond({200, "text/plain", "ok", {{"X-Evil", "a\r\nX-Injected: 1"}, {"Content-Length", "9"}}});
    } else {
      std::string query;
      for (const auto& [k, v] : r.query) query += k + "=" + v + ";";
      x->respond({200, "text/plain", r.method + " " + r.path + " " + query + " " + r.body, {}});
    }
  }
  std::shared_ptr<Exchange> held(size_t i = 0) {
    EXPECT_TRUE(eventually([&] {
      const std::lock_guard lock(mutex_);
      return held_.size() > i;
    }));
    const std::lock_guard lock(mutex_);
    return held_.at(i);
  }
  void release() {
    const std::lock_guard lock(mutex_);
    held_.clear();
  }
  TestClient client(int receive_buffer = 0) { return TestClient(server_->port(), receive_buffer); }

  std::unique_ptr<HttpServer> server_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Exchange>> held_;
  std::atomic<int> gone_ = 0;
};

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
}

}  // namespace
}  // namespace krait::serve
