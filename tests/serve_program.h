// `krait serve` as a child process, and calls of it.
#pragma once
#include "krait/serve/http/test_client.h"
#include "tests/cli_harness.h"

namespace krait::test {

using serve::testing::Reply;
using serve::testing::TestClient;

inline constexpr const char* kKey = "a-key-for-this-test";

// A running server; every call on a connection of its own.
class Program {
 public:
  explicit Program(Args options) {
    const fs::path file = fs::temp_directory_path() / ("krait-serve-port-" + std::to_string(getpid()));
    fs::remove(file);
    Args args = {"serve", "--port", "0", "--port-file", file.string()};
    args.insert(args.end(), options.begin(), options.end());
    child_ = std::make_unique<Child>(args, "");
    for (int i = 0; i < 1200 && read_all(file).empty(); ++i) usleep(25'000);
    port_ = static_cast<uint16_t>(std::stoi(read_all(file)));
    for (int i = 0; i < 1200 && get("/health").status != 200; ++i) usleep(25'000);
  }

  ~Program() {
    if (waited_) return;
    kill(SIGKILL);
    wait();
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  Reply get(const std::string& path, const std::string& key = kKey, const std::string& headers = "") {
    return TestClient(port_).get(path, authorization(key) + headers);
  }
  Reply send(const std::string& method, const std::string& path, const std::string& body, const std::string& key = kKey,
             const std::string& type = "application/json") {
    TestClient c(port_);
    c.send(method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n" + authorization(key) + "Content-Type: " + type +
           "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    return c.reply();
  }
  json post(const std::string& path, const json& body) {
    const Reply r = send("POST", path, body.dump());
    EXPECT_EQ(r.status, 200) << r.body;
    return json::parse(r.body);
  }
  TestClient connect() const { return TestClient(port_); }
  static std::string authorization(const std::string& key) {
    return key.empty() ? "" : "Authorization: Bearer " + key + "\r\n";
  }

  void kill(int signal) { child_->kill(signal); }
  Finished wait() {
    waited_ = true;
    return child_->wait();
  }
  Finished end() {
    kill(SIGTERM);
    return wait();
  }

 private:
  std::unique_ptr<Child> child_;
  uint16_t port_ = 0;
  bool waited_ = false;
};

inline std::string error_code(const Reply& r) { return json::parse(r.body)["error"]["code"]; }

inline const json kAsk = {{"prompt", "It was a dark night"}, {"max_tokens", 12}, {"seed", 1}};

inline json with(json body, const json& more) {
  body.update(more);
  return body;
}

}  // namespace krait::test
