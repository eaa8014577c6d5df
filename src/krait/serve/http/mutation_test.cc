// Malformed requests over real connections, by the thousand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "krait/serve/http/server_fixture.h"

namespace krait::serve {
namespace {

using testing::eventually;
using testing::TestClient;

class HttpMutationTest : public testing::ServerFixture {};

// Requests with bytes changed, dropped, doubled and cut: an answer with a known status, or none; never the server's
// end.
void send_mutated(HttpServer& server, int count, uint32_t seed) {
  const std::vector<std::string> seeds = {
      "GET /v1/models?limit=3 HTTP/1.1\r\nHost: localhost:8080\r\nAuthorization: Bearer k\r\nAccept: */*\r\n\r\n",
      "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"prompt\": "
      "\"hi\"}",
      "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nTrailer: 1\r\n\r\n",
      "HEAD /%41%2fb HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /drop HTTP/1.1\r\nHost: x\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
  };
  const std::vector<std::string> words = {"\r\n",
                                          "\r",
                                          "\n",
                                          "\r\n\r\n",
                                          ":",
                                          " ",
                                          "\t",
                                          "chunked",
                                          "Content-Length: 7\r\n",
                                          "%00",
                                          "%2e%2e",
                                          "/",
                                          "\\",
                                          "0",
                                          "-1",
                                          ",",
                                          "HTTP/1.1",
                                          "Host: y\r\n",
                                          "fffff",
                                          "Transfer-Encoding: chunked\r\n",
                                          "Connection: close\r\n"};
  std::mt19937 rng(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(rng() % n); };
  for (int i = 0; i < count; ++i) {
    std::string bytes = seeds[below(seeds.size())];
    for (size_t m = below(5); m-- > 0;) {
      const size_t at = below(bytes.size());
      switch (below(5)) {
        case 0:
          bytes[at] = static_cast<char>(rng());
          break;
        case 1:
          bytes.erase(at, below(8));
          break;
        case 2:
          bytes.insert(at, words[below(words.size())]);
          break;
        case 3:
          bytes.insert(at, bytes.substr(below(bytes.size()), below(40)));
          break;
        default:
          bytes.resize(std::max<size_t>(1, at));
          break;
      }
      if (bytes.empty()) bytes = "\r\n";
    }
    TestClient c(server.port());
    const size_t cut = below(bytes.size() + 1);  // in two parts
    c.send(bytes.substr(0, cut));
    c.send(bytes.substr(cut));
    if (below(20) == 0) {
      c.reset();
      continue;
    }
    c.close_sending_side();
    ASSERT_TRUE(c.wait_for_end(20'000)) << "seed " << seed << " request " << i << "\n" << bytes;
    const std::string& got = c.buffered();
    if (got.empty()) continue;
    ASSERT_THAT(got.substr(0, 12), ::testing::AnyOf("HTTP/1.1 100", "HTTP/1.1 200", "HTTP/1.1 400", "HTTP/1.1 413",
                                                    "HTTP/1.1 417", "HTTP/1.1 500", "HTTP/1.1 501", "HTTP/1.1 505"))
        << "seed " << seed << " request " << i << "\n"
        << bytes;
  }
}

TEST_F(HttpMutationTest, MutatedRequests) {
  start();
  send_mutated(*server_, 2000, 1);
  EXPECT_EQ(client().get("/").status, 200);
  EXPECT_TRUE(eventually([&] { return server_->stats().connections == 0; }));
}

// Minutes: --gtest_also_run_disabled_tests
TEST_F(HttpMutationTest, DISABLED_HundredThousandMutatedRequests) {
  start();
  send_mutated(*server_, 100'000, 2);
  EXPECT_EQ(client().get("/").status, 200);
  EXPECT_TRUE(eventually([&] { return server_->stats().connections == 0; }));
}

}  // namespace
}  // namespace krait::serve
