// krait plot: pictures of metrics, and what it says when there is nothing to draw.
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class PlotTest : public CliTest {
 protected:
  // 20 steps; the 7th loss was not finite.
  void metrics(const std::string& name) const {
    std::string lines;
    for (int i = 1; i <= 20; ++i) {
      const std::string loss = i == 7 ? "null" : std::to_string(5.0 / i);
      lines += R"({"step":)" + std::to_string(i) + R"(,"loss":)" + loss + R"(,"lr":0.001})" + "\n";
    }
    write(name, lines);
  }
};

TEST_F(PlotTest, DrawsSvgAndPng) {
  metrics("metrics.jsonl");
  const Finished svg = krait({"plot", path("metrics.jsonl"), "--out", path("a.svg")});
  if (svg.err.find("libcairo2") != std::string::npos) GTEST_SKIP() << svg.err;
  ASSERT_EQ(svg.code, 0) << svg.err;
  EXPECT_THAT(read_all(path("a.svg")), HasSubstr("<svg"));
  ASSERT_EQ(krait({"plot", path("."), path("metrics.jsonl"), "--out", path("a.png"), "--smooth", "3"}).code, 0);
  EXPECT_THAT(read_all(path("a.png")), StartsWith("\x89PNG"));
}

TEST_F(PlotTest, ALineThatIsStillWrittenIsLeftOut) {
  write("metrics.jsonl", R"({"step":1,"loss":3}
{"step":2,"loss":2}
{"step":3,"lo)");
  const Finished f = krait({"plot", path("metrics.jsonl"), "--out", path("a.svg")});
  EXPECT_TRUE(f.code == 0 || f.err.find("libcairo2") != std::string::npos) << f.err;
}

TEST_F(PlotTest, SaysWhatIsWrong) {
  metrics("metrics.jsonl");
  write("broken.jsonl", "{\"step\":1}\nno json\n{\"step\":3}\n");
  const auto fails = [&](const Args& more, int code, const std::string& message) {
    const Finished f = krait(Args{"plot"} + more);
    EXPECT_EQ(f.code, code) << f.err;
    EXPECT_THAT(f.err, HasSubstr(message));
  };
  fails({path("metrics.jsonl"), "--out", path("a.gif")}, 2, "must end in .svg or .png");
  fails({path("metrics.jsonl"), "--out", path("a.svg"), "--key", "speed"}, 2, "there are loss, lr");
  fails({path("metrics.jsonl"), "--out", path("a.svg"), "--key", "lr", "--log-loss"}, 2, "--log-loss has no effect");
  fails({path("metrics.jsonl"), "--out", path("a.svg"), "--key", "lr", "--smooth", "3"}, 2, "--smooth has no effect");
  fails({path("broken.jsonl"), "--out", path("a.svg")}, 3, "line 2");
  fails({path("nowhere"), "--out", path("a.svg")}, 3, "cannot read");
  fails({path("metrics.jsonl")}, 2, "--out");
}

}  // namespace
}  // namespace krait::test
