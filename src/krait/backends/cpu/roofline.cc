#include "krait/backends/cpu/roofline.h"

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <optional>
#include <vector>

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

// The loops of a kernel set that runs here; else the best.
const RooflineLoops& loops_of(std::string_view kernels) {
  struct Variant {
    std::string_view kernels;
    const RooflineLoops& loops;
  };
  std::vector<Variant> here;  // best first
#if defined(__x86_64__)
  const CpuFeatures& cpu = cpu_features();
  if (cpu.avx512_bf16) here.push_back({"cpu-avx512-bf16", avx512_bf16::roofline_loops()});
  if (cpu.avx512) here.push_back({"cpu-avx512", avx512::roofline_loops()});
  if (cpu.avx2) here.push_back({"cpu-avx2", avx2::roofline_loops()});
#endif
  here.push_back({"cpu-scalar", kPlain});
  for (const Variant& v : here) {
    if (v.kernels == kernels) return v.loops;
  }
  return here.front().loops;
}

// Times a run on the pool. With one thread by that thread's processor time, which leaves out what other processes took.
class Stopwatch {
 public:
  explicit Stopwatch(ThreadPool& pool) : clock_(pool.n_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC) {}

  double now() const {
    timespec t{};
    clock_gettime(clock_, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }

  template <class F>
  double seconds(F f) const {
    const double start = now();
    f();
    return now() - start;
  }

 private:
  clockid_t clock_;
};

// A loop in registers, in runs of about 8 ms on each thread.
class Peak {
 public:
  Peak(const Stopwatch& watch, float (*loop)(int64_t), int64_t ops_per_round) : loop_(loop), ops_(ops_per_round) {
    while (watch.seconds([&] { sink = loop_(rounds_); }) < 8e-3) rounds_ *= 2;
  }
  // 10^9 operations a second.
  double measure(ThreadPool& pool, const Stopwatch& watch) const {
    const int threads = pool.n_threads();
    const double seconds = watch.seconds([&] { pool.parallel_for(threads, [&](int64_t) { sink = loop_(rounds_); }); });
    return static_cast<double>(rounds_) * static_cast<double>(ops_) * threads / seconds * 1e-9;
  }

 private:
  float (*loop_)(int64_t);
  int64_t ops_;
  int64_t rounds_ = 1 << 12;
};

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
  int64_t bytes = std::max(int64_t{512} << 20, 4 * last_cache_bytes());
  bytes = std::min(bytes, static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGESIZE) / 4);
  return std::max<int64_t>(1, bytes / 4 / (2 * kPiece)) * 2 * kPiece;
}

}  // namespace

int64_t last_cache_bytes() {
#ifdef _SC_LEVEL3_CACHE_SIZE
  return std::max<int64_t>(0, sysconf(_SC_LEVEL3_CACHE_SIZE));
#else
  return 0;
#endif
}

struct RooflineMeter::Impl {
  Impl(ThreadPool& p, std::string_view kernels)
      : pool(p),
        watch(p),
        loops(loops_of(kernels)),
        f32(watch, loops.f32, loops.f32_ops),
        int8(watch, loops.int8, loops.int8_ops),
        floats(stream_size()),
        array(floats) {
    if (loops.bf16 != nullptr) bf16.emplace(watch, loops.bf16, loops.bf16_ops);
    float* x = array.data();
    pool.parallel_for(floats / kPiece, [&](int64_t i) { std::fill_n(x + i * kPiece, kPiece, 1.0f); });
  }

  double read() {
    const float* x = array.data();
    const double seconds = watch.seconds(
        [&] { pool.parallel_for(floats / kPiece, [&](int64_t i) { sink = loops.read(x + i * kPiece, kPiece); }); });
    return static_cast<double>(floats) * 4 * 1e-9 / seconds;
  }

  double copy() {
    float* x = array.data();
    const int64_t half = floats / 2;
    const double seconds = watch.seconds([&] {
      pool.parallel_for(half / kPiece, [&](int64_t i) { loops.copy(x + half + i * kPiece, x + i * kPiece, kPiece); });
    });
    return static_cast<double>(floats) * 4 * 1e-9 / seconds;
  }

  ThreadPool& pool;
  Stopwatch watch;
  const RooflineLoops& loops;
  Peak f32, int8;
  std::optional<Peak> bf16;
  int64_t floats;
  Array array;
};

RooflineMeter::RooflineMeter(ThreadPool& pool, std::string_view kernels)
    : impl_(std::make_unique<Impl>(pool, kernels)) {}
RooflineMeter::~RooflineMeter() = default;

Roofline RooflineMeter::sample() {
  constexpr int kRuns = 3;
  Impl& m = *impl_;
  Roofline r{};
  for (int i = 0; i < kRuns; ++i) {
    r.f32_gflops = std::max(r.f32_gflops, m.f32.measure(m.pool, m.watch));
    r.bf16_gflops = m.bf16 ? std::max(r.bf16_gflops, m.bf16->measure(m.pool, m.watch)) : r.f32_gflops;
    r.int8_gops = std::max(r.int8_gops, m.int8.measure(m.pool, m.watch));
    r.read_gb_per_s = std::max(r.read_gb_per_s, m.read());
    r.copy_gb_per_s = std::max(r.copy_gb_per_s, m.copy());
  }
  return r;
}

Roofline better(const Roofline& a, const Roofline& b) {
  return {std::max(a.f32_gflops, b.f32_gflops), std::max(a.bf16_gflops, b.bf16_gflops),
          std::max(a.int8_gops, b.int8_gops), std::max(a.read_gb_per_s, b.read_gb_per_s),
          std::max(a.copy_gb_per_s, b.copy_gb_per_s)};
}

double measure_f32_gflops(ThreadPool& pool) {
  const RooflineLoops& loops = loops_of({});
  const Stopwatch watch(pool);
  const Peak peak(watch, loops.f32, loops.f32_ops);
  double best = 0;
  for (int i = 0; i < 8; ++i) best = std::max(best, peak.measure(pool, watch));
  return best;
}

Roofline measure_roofline(ThreadPool& pool) {
  RooflineMeter meter(pool);
  Roofline r = meter.sample();
  for (int i = 1; i < 4; ++i) r = better(r, meter.sample());
  return r;
}

}  // namespace krait
