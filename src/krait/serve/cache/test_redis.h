// For tests: a redis-server of their own on a unix socket in a temporary folder.
#pragma once
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "krait/io/test_folder.h"
#include "krait/serve/cache/redis_store.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {

class TestRedis {
 public:
  static bool installed() { return std::system("command -v redis-server >/dev/null 2>&1") == 0; }

  explicit TestRedis(std::string password = "") : password_(std::move(password)) { start(); }
  ~TestRedis() { stop(); }
  TestRedis(const TestRedis&) = delete;
  TestRedis& operator=(const TestRedis&) = delete;

  // Nothing is kept over a stop(): it comes back empty.
  void start() {
    const std::string socket = (folder_ / "s").string(), dir = folder_.path().string();
    pid_ = ::fork();
    if (pid_ == 0) {
      const int null = ::open("/dev/null", O_RDWR);
      ::dup2(null, 1);
      ::dup2(null, 2);
      ::execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", socket.c_str(), "--dir", dir.c_str(),
               "--save", "", "--appendonly", "no", "--requirepass", password_.c_str(), nullptr);
      ::_exit(127);
    }
    for (int i = 0; i < 500; ++i) {
      const auto store = open();
      try {
        store->log_size("up");
        return;
      } catch (const ServeError&) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    }
    ADD_FAILURE() << "redis-server does not answer";
  }
  void stop() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  void pause() { ::kill(pid_, SIGSTOP); }  // connected, but answers nothing
  void go_on() { ::kill(pid_, SIGCONT); }

  std::string url() const {
    return fmt::format("unix:{}{}", password_.empty() ? "" : fmt::format("//:{}@", password_),
                       (folder_ / "s").string());
  }
  std::unique_ptr<Store> open() const {
    RedisStoreOptions o;
    o.url = url();
    o.timeout = std::chrono::milliseconds(300);
    o.retry = std::chrono::milliseconds(30);
    return open_redis_store(o);
  }

 private:
  io::TestFolder folder_;
  std::string password_;
  pid_t pid_ = 0;
};

#define KRAIT_NEEDS_REDIS() \
  if (!TestRedis::installed()) GTEST_SKIP() << "redis-server is not installed"

}  // namespace krait::serve
