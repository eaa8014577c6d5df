// A running server for tests, with routes that answer at once and others that wait for what the test does with them.
#pragma once
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "krait/serve/http/server.h"
#include "krait/serve/http/test_client.h"
#include "krait/serve/serve_error.h"

namespace krait::serve::testing {

using namespace std::chrono_literals;

inline bool eventually(const std::function<bool()>& f, std::chrono::milliseconds limit = 10s) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!f()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

class ServerFixture : public ::testing::Test {
 protected:
  void start(HttpOptions options = {}) {
    options.port = 0;
    options.on_failure = [this](const std::string&, const std::string& what) {
      const std::lock_guard lock(mutex_);
      failures_.push_back(what);
    };
    server_ = std::make_unique<HttpServer>(options, [this](std::shared_ptr<Exchange> x) { handle(std::move(x)); });
    server_->start();
  }
  void TearDown() override {
    release();
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
    } else if (r.path == "/posted_bug") {
      x->post([x] { throw std::runtime_error("posted"); });
    } else if (r.path == "/drop") {  // goes unanswered
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

  // The i-th exchange that waits.
  std::shared_ptr<Exchange> held(size_t i = 0) {
    EXPECT_TRUE(eventually([&] { return held_count() > i; }));
    const std::lock_guard lock(mutex_);
    return held_.at(i);
  }
  size_t held_count() {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }
  void release() {
    std::vector<std::shared_ptr<Exchange>> gone;
    const std::lock_guard lock(mutex_);
    gone.swap(held_);
  }
  std::vector<std::string> failures() {
    const std::lock_guard lock(mutex_);
    return failures_;
  }

  TestClient client(int receive_buffer = 0) { return TestClient(server_->port(), receive_buffer); }
  // The answer to `bytes` on a connection of its own.
  Reply ask(const std::string& bytes) {
    TestClient c = client();
    c.send(bytes);
    return c.reply();
  }
  TestClient open_stream(int receive_buffer = 0, const char* version = "1.1") {
    TestClient c = client(receive_buffer);
    c.send(std::string("GET /stream HTTP/") + version + "\r\nHost: x\r\n\r\n");
    EXPECT_TRUE(c.wait_for("\r\n\r\n"));
    return c;
  }

  std::unique_ptr<HttpServer> server_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Exchange>> held_;
  std::vector<std::string> failures_;
  std::atomic<int> gone_ = 0;
};

}  // namespace krait::serve::testing
