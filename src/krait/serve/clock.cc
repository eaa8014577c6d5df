#include "krait/serve/clock.h"

namespace krait::serve {
namespace {

class RealClock : public Clock {
 public:
  std::chrono::nanoseconds steady() const override { return std::chrono::steady_clock::now().time_since_epoch(); }
  std::chrono::system_clock::time_point wall() const override { return std::chrono::system_clock::now(); }
};

}  // namespace

const Clock& real_clock() {
  static const RealClock clock;
  return clock;
}

}  // namespace krait::serve
