#include "krait/train/metrics_log.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "krait/io/test_folder.h"

namespace krait::train {
namespace {

TEST(MetricsLog, ALogThatIsGoneOnWithHasEveryStepOnce) {
  const io::TestFolder folder;
  const auto path = folder / "metrics.jsonl";
  {
    MetricsLog log(path, 0);
    for (int64_t step = 1; step <= 5; ++step) log.on_step({.step = step, .steps = 9, .loss = 0.5});
    log.on_validation({.step = 5, .loss = 2});
  }
  const std::string five = io::read_text(path);
  EXPECT_EQ(std::ranges::count(five, '\n'), 6);
  {
    MetricsLog log(path, 3);
    log.on_step({.step = 4, .steps = 9, .loss = 0.25});
  }
  const std::string four = io::read_text(path);
  EXPECT_EQ(std::ranges::count(four, '\n'), 4);
  const io::Json last = io::Json::parse(four.substr(four.rfind('{')), "line");
  EXPECT_EQ(last.at("step").as_integer(), 4);
  EXPECT_EQ(last.at("loss").as_double(), 0.25);
}

TEST(MetricsLog, ALineThatAKilledProcessLeftHalfWrittenGoes) {
  const io::TestFolder folder;
  const auto path = folder.write("metrics.jsonl", "{\"step\": 1, \"loss\": 3}\n{\"step\": 2, \"lo");
  {
    const MetricsLog log(path, 100);
  }
  EXPECT_EQ(io::read_text(path), "{\"step\": 1, \"loss\": 3}\n");
}

}  // namespace
}  // namespace krait::train
