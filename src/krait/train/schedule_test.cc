#include "krait/train/schedule.h"

#include <gtest/gtest.h>

namespace krait::train {
namespace {

using Shape = LrSchedule::Shape;

TEST(LrSchedule, RisesThenFollowsItsShape) {
  for (const Shape shape : {Shape::kConstant, Shape::kCosine, Shape::kLinear, Shape::kWsd}) {
    const LrSchedule s{shape, 1.0, 0.2, 110, 10, 20};
    EXPECT_DOUBLE_EQ(s.at(0), 0.1);
    EXPECT_DOUBLE_EQ(s.at(9), 1.0);
    EXPECT_DOUBLE_EQ(s.at(10), 1.0);
    EXPECT_DOUBLE_EQ(s.at(110), shape == Shape::kConstant ? 1.0 : 0.2);
    EXPECT_DOUBLE_EQ(s.at(500), s.at(110));
  }
  EXPECT_NEAR((LrSchedule{Shape::kCosine, 1.0, 0.2, 110, 10, 0}).at(60), 0.6, 1e-12);
  EXPECT_NEAR((LrSchedule{Shape::kLinear, 1.0, 0.2, 110, 10, 0}).at(35), 0.8, 1e-12);
  const LrSchedule wsd{Shape::kWsd, 1.0, 0.2, 110, 10, 20};
  EXPECT_DOUBLE_EQ(wsd.at(89), 1.0);
  EXPECT_NEAR(wsd.at(100), 0.6, 1e-12);
}

}  // namespace
}  // namespace krait::train
