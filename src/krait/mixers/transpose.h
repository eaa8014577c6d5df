// Checkpoint order -> kernel order of small f32 tensors, done once at load. With a tape, gradients find their way back.
#pragma once
#include "krait/autograd/tape.h"
#include "krait/core/tensor.h"

namespace krait {

// The last two dimensions change places: [A, B] -> [B, A], [H, A, B] -> [H, B, A].
Tensor transposed(const Tensor& t, Tape* tape);

// conv1d.weight [C, 1, W] -> taps [W, C]
inline Tensor conv_taps(const Tensor& w, Tape* tape) { return transposed(w.reshape({w.dim(0), w.dim(2)}), tape); }

}  // namespace krait
