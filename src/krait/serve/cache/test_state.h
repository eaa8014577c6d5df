// For tests: states made by hand, and a clock that stands still until it is moved.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "krait/infer/state.h"
#include "krait/serve/clock.h"

namespace krait::serve {

inline constexpr uint64_t kTestModel = 0x1234;

// A state that has read `ids`; its tensor and logits are a function of them. `floats`: size of the tensor.
inline std::shared_ptr<const State> test_state(std::span<const int32_t> ids, int64_t floats = 4,
                                               uint64_t model = kTestModel) {
  auto s = std::make_shared<State>();
  s->model_fingerprint = model;
  s->architecture = "mamba2";
  s->head.history.push(ids);
  s->specs = {{{"ssm", {floats}, DType::kF32}}};
  Tensor t = Tensor::empty({floats});
  const auto value = static_cast<float>(s->head.history.hash() >> 40);
  for (int64_t i = 0; i < floats; ++i) t.f32()[i] = value + static_cast<float>(i);
  s->blocks = {{t}};
  if (!ids.empty()) {
    s->head.last_logits = Tensor::empty({2});
    s->head.last_logits.f32()[0] = value;
    s->head.last_logits.f32()[1] = -value;
  }
  return s;
}

class TestClock : public Clock {
 public:
  std::chrono::nanoseconds steady() const override { return now_; }
  std::chrono::system_clock::time_point wall() const override {
    return std::chrono::system_clock::time_point(std::chrono::seconds(1'700'000'000)) + now_ + set_by_;
  }
  void pass(std::chrono::nanoseconds t) { now_ += t; }
  void set_wall(std::chrono::nanoseconds by) { set_by_ += by; }

 private:
  std::chrono::nanoseconds now_{std::chrono::hours(1)}, set_by_{0};
};

}  // namespace krait::serve
