// The loops that roofline.cc times, one set an instruction-set variant. Plain types only: roofline.cc includes this
// for every variant that it can choose.
#pragma once
#include <stdint.h>

namespace krait {

struct RooflineLoops {
  // Each runs `rounds` rounds and returns a value that depends on all of them.
  float (*f32)(int64_t rounds);
  float (*bf16)(int64_t rounds);  // null: widened, as fast as f32
  float (*int8)(int64_t rounds);
  int64_t f32_ops, bf16_ops, int8_ops;                    // of one round; a multiply-add is two
  float (*read)(const float* x, int64_t n);               // n: a multiple of 256; x aligned to 64 bytes
  void (*copy)(float* dst, const float* src, int64_t n);  // as above
};

}  // namespace krait
