// What the tests of the CPU kernels share: random rows with canaries, packed batches, bitwise and bounded comparison.
#pragma once
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "krait/backends/cpu/cpu_backend.h"
#include "krait/core/rng.h"
#include "krait/core/seq_spans.h"
#include "krait/core/tensor.h"
#include "tests/tolerances.h"

namespace krait::testing_util {

constexpr float kCanary = 12345.0f;

inline std::vector<float> normals(int64_t n, uint64_t seed, double scale = 1, double mean = 0) {
  Rng rng(seed, 77);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& f : v) f = static_cast<float>(mean + scale * rng.normal());
  return v;
}

// [T, D] with row stride ld; what lies between the rows must keep its canary.
struct Rows {
  Rows(int64_t rows, int64_t width, int64_t gap) : T(rows), D(width), ld(width + gap) {
    data.assign(static_cast<size_t>(T * ld), kCanary);
  }
  static Rows random(int64_t rows, int64_t width, int64_t gap, uint64_t seed, double scale = 1, double mean = 0) {
    Rows r(rows, width, gap);
    const std::vector<float> v = normals(rows * width, seed, scale, mean);
    for (int64_t t = 0; t < rows; ++t) std::copy_n(&v[static_cast<size_t>(t * width)], width, r.row(t));
    return r;
  }
  float* row(int64_t t) { return data.data() + t * ld; }
  const float* row(int64_t t) const { return data.data() + t * ld; }
  void expect_gaps_untouched() const {
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t d = D; d < ld; ++d) ASSERT_EQ(row(t)[d], kCanary) << "row " << t << " column " << d;
    }
  }
  int64_t T, D, ld;
  std::vector<float> data;
};

// Of f32 arrays, for the oracles.
inline std::vector<double> widened(const std::vector<float>& v) { return {v.begin(), v.end()}; }

inline SpanView view(const SeqSpans& s) { return {s.offset.data(), s.slot.data(), s.n_seqs()}; }

// Sequences of these lengths, in scattered slots of 0 .. 7.
inline SeqSpans packed(const std::vector<int64_t>& lengths) {
  SeqSpans spans;
  for (size_t i = 0; i < lengths.size(); ++i) spans.add(lengths[i], static_cast<int32_t>((i * 5 + 3) % 8));
  return spans;
}

// Name of a parametrised test: the kernel set.
inline std::string set_name(const testing::TestParamInfo<const KernelSet*>& info) {
  std::string name = info.param->name;
  for (char& c : name) {
    if (c == '-') c = '_';
  }
  return name;
}

// A weight [N, K], `raw` as a checkpoint holds it, packed from an address that lies `shift` bytes behind an aligned
// one; checks that packing stays inside its buffer.
inline Tensor pack_shifted(const KernelSet& set, ThreadPool& pool, const std::vector<char>& raw, int64_t shift,
                           DType dtype, int64_t N, int64_t K) {
  const auto bytes = static_cast<int64_t>(set.packed_weight_bytes(dtype, N, K));
  Tensor packed = Tensor::empty({bytes + 64}, DType::kU8);
  std::memset(packed.bytes(), 0xAB, static_cast<size_t>(bytes + 64));
  std::vector<char> shifted(raw.size() + static_cast<size_t>(shift));
  std::memcpy(shifted.data() + shift, raw.data(), raw.size());
  set.pack_weight({&pool}, {shifted.data() + shift, dtype, N, K, packed.bytes()});
  for (int64_t i = bytes; i < bytes + 64; ++i) EXPECT_EQ(static_cast<int>(packed.bytes()[i]), 0xAB);
  return packed;
}

// y [M, ldy] of a matmul, in a buffer of canaries: where nothing may be written they must still stand. `p.y`, `p.ldy`
// are filled in here.
inline std::vector<float> run_matmul(const KernelSet& set, ThreadPool& pool, MatmulParams p, int64_t ldy) {
  std::vector<float> y(static_cast<size_t>((p.M + 1) * ldy), kCanary);
  p.y = y.data();
  p.ldy = ldy;
  set.matmul({&pool}, p);
  for (int64_t m = 0; m <= p.M; ++m) {
    for (int64_t n = m < p.M ? p.N : 0; n < ldy; ++n) EXPECT_EQ(y[static_cast<size_t>(m * ldy + n)], kCanary);
  }
  return y;
}

inline bool same_bits(const float* a, const float* b, int64_t n) {
  return std::memcmp(a, b, static_cast<size_t>(n) * sizeof(float)) == 0;
}

inline void expect_near(double got, double want, double bound, const std::string& where) {
  if (!(std::fabs(got - want) <= bound)) {
    ADD_FAILURE() << where << ": got " << got << ", want " << want << ", error " << std::fabs(got - want) << ", bound "
                  << bound;
  }
}

// Address space for `n` floats that costs memory only where it is touched: offsets beyond 2^32 in a small test.
struct HugeFloats {
  explicit HugeFloats(int64_t n) : bytes(static_cast<size_t>(n) * sizeof(float)) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    data = p == MAP_FAILED ? nullptr : static_cast<float*>(p);
  }
  ~HugeFloats() {
    if (data != nullptr) munmap(data, bytes);
  }
  HugeFloats(const HugeFloats&) = delete;
  HugeFloats& operator=(const HugeFloats&) = delete;
  size_t bytes;
  float* data;
};

}  // namespace krait::testing_util
