#include "krait/mixers/mixer.h"

#include <cstring>

#include "krait/mixers/transpose.h"

namespace krait {

ConvTaps ParamSource::taps(const std::string& name) const { return {conv_taps(f32(name), tape())}; }

void Mixer::reset_state_backward(Gradients&, const StateView&, int64_t) const {}

Tensor slot_of(const Tensor& state, int64_t slot) {
  const Tensor one = state.narrow(0, slot, 1);
  return one.reshape(Shape(state.shape().dims().subspan(1)));
}

void Mixer::reset_state(StateView& state, int64_t slot) const {
  for (Tensor& t : state) {
    Tensor s = slot_of(t, slot);
    std::memset(s.bytes(), 0, static_cast<size_t>(s.nbytes()));
  }
}

}  // namespace krait
