#include "krait/backends/cpu/roofline.h"

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

#include "krait/backends/cpu/cpu_features.h"
#include "krait/backends/cpu/isa/roofline.h"

namespace krait {

#if defined(__x86_64__)
namespace avx512_bf16 {
const RooflineLoops& roofline_loops();
}
namespace avx512 {
const RooflineLoops& roofline_loops();
}
namespace avx2 {
const RooflineLoops& roofline_loops();
}
#endif

namespace {

constexpr int kRepeats = 12;
constexpr int64_t kPiece = 1 << 18;  // floats of a stream handed out at a time

std::atomic<float> sink;  // keeps the loops' results alive

// The portable loops: whatever the compiler makes of them.
constexpr int kChains = 32;

template <class T>
float plain_multiply_adds(int64_t rounds) {
  T sum[kChains] = {}, a[kChains], b[kChains];
  for (int i = 0; i < kChains; ++i) {
    a[i] = static_cast<T>(i % 2);
    b[i] = static_cast<T>(1);
  }
  for (int64_t r = 0; r < rounds; ++r) {
    for (int i = 0; i < kChains; ++i) sum[i] = static_cast<T>(sum[i] * a[i] + b[i]);
  }
  T all = 0;
  for (T s : sum) all = static_cast<T>(all + s);
  return static_cast<float>(all);
}

float plain_read(const float* x, int64_t n) {
  uint32_t all[16] = {};
  for (int64_t at = 0; at < n; at += 16) {
    uint32_t words[16];
    std::memcpy(words, x + at, sizeof(words));
    for (int i = 0; i < 16; ++i) all[i] |= words[i];
  }
  uint32_t one = 0;
  for (uint32_t a : all) one |= a;
  return static_cast<float>(one);
}

void plain_copy(float* dst, const float* src, int64_t n) { std::memcpy(dst, src, static_cast<size_t>(n) * 4); }

constexpr RooflineLoops kPlain{plain_multiply_adds<float>,
                               nullptr,
                               plain_multiply_adds<uint32_t>,
                               2 * kChains,
                               0,
                               2 * kChains,
                               plain_read,
                               plain_copy};

const RooflineLoops& best_loops() {
#if defined(__x86_64__)
  const CpuFeatures& cpu = cpu_features();
  if (cpu.avx512_bf16) return avx512_bf16::roofline_loops();
  if (cpu.avx512) return avx512::roofline_loops();
  if (cpu.avx2) return avx2::roofline_loops();
#endif
  return kPlain;
}

// Times runs on the pool. With one thread by that thread's processor time, which leaves out what other processes took.
class Stopwatch {
 public:
  explicit Stopwatch(ThreadPool& pool) : clock_(pool.n_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC) {}

  double now() const {
    timespec t{};
    clock_gettime(clock_, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }

  template <class F>
  double best_seconds(F f) const {
    double best = 1e300;
    for (int i = 0; i < kRepeats; ++i) {
      const double start = now();
      f();
      best = std::min(best, now() - start);
    }
    return best;
  }

 private:
  clockid_t clock_;
};

// 10^9 operations a second, in runs of about 10 ms.
double peak(ThreadPool& pool, float (*loop)(int64_t), int64_t ops_per_round) {
  const Stopwatch watch(pool);
  int64_t rounds = 1 << 12;
  for (double start = watch.now(); sink = loop(rounds), watch.now() - start < 8e-3; start = watch.now()) rounds *= 2;
  const int threads = pool.n_threads();
  const double seconds = watch.best_seconds([&] { pool.parallel_for(threads, [&](int64_t) { sink = loop(rounds); }); });
  return static_cast<double>(rounds) * static_cast<double>(ops_per_round) * threads / seconds * 1e-9;
}

// Anonymous memory in big pages where the system gives them.
class Array {
 public:
  explicit Array(int64_t floats) : bytes_(static_cast<size_t>(floats) * 4) {
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) throw std::bad_alloc();
    madvise(data_, bytes_, MADV_HUGEPAGE);  // a wish: the measurement is right without it
  }
  ~Array() { munmap(data_, bytes_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  float* data() { return static_cast<float*>(data_); }

 private:
  void* data_;
  size_t bytes_;
};

// Floats of the array that is streamed: an even number of pieces.
int64_t stream_size() {
  int64_t bytes = int64_t{512} << 20;
#ifdef _SC_LEVEL3_CACHE_SIZE
  bytes = std::max(bytes, 4 * static_cast<int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE)));
#endif
  bytes = std::min(bytes, static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGESIZE) / 4);
  return std::max<int64_t>(1, bytes / 4 / (2 * kPiece)) * 2 * kPiece;
}

}  // namespace

Roofline measure_roofline(ThreadPool& pool) {
  const RooflineLoops& loops = best_loops();
  Roofline r{};
  r.f32_gflops = peak(pool, loops.f32, loops.f32_ops);
  r.bf16_gflops = loops.bf16 != nullptr ? peak(pool, loops.bf16, loops.bf16_ops) : r.f32_gflops;
  r.int8_gops = peak(pool, loops.int8, loops.int8_ops);

  const int64_t n = stream_size();
  Array array(n);
  float* x = array.data();
  pool.parallel_for(n / kPiece, [&](int64_t i) { std::fill_n(x + i * kPiece, kPiece, 1.0f); });
  const Stopwatch watch(pool);
  const double bytes = static_cast<double>(n) * 4 * 1e-9;
  r.read_gb_per_s = bytes / watch.best_seconds([&] {
    pool.parallel_for(n / kPiece, [&](int64_t i) { sink = loops.read(x + i * kPiece, kPiece); });
  });
  const int64_t half = n / 2;
  r.copy_gb_per_s = bytes / watch.best_seconds([&] {
    pool.parallel_for(half / kPiece, [&](int64_t i) { loops.copy(x + half + i * kPiece, x + i * kPiece, kPiece); });
  });
  return r;
}

}  // namespace krait
