// krait bench train: speed and memory of training steps of a model.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "json_out.h"
#include "krait/backends/cpu/roofline.h"
#include "krait/core/error.h"
#include "krait/core/rng.h"
#include "krait/train/optimizer.h"
#include "krait/train/train_model.h"
#include "resident.h"
#include "session.h"
#include "terminal.h"

namespace krait::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct Args {
  ModelArgs model;
  int64_t batch = 4, length = 1024, steps = 3, segment = 0;
  bool checkpoint = false, json = false;
};

double seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

data::Batch random_batch(const Args& a, int64_t vocab) {
  data::Batch b;
  for (int64_t s = 0; s < a.batch; ++s) {
    b.add_next_tokens(random_integers(a.length + 1, vocab, Rng(1, static_cast<uint64_t>(s))));
  }
  return b;
}

struct Phases {
  double begin = 0, pass = 0, update = 0;  // seconds
  double total() const { return begin + pass + update; }
};

Phases step(train::TrainModel& m, train::Optimizer& optimizer, const data::Batch& b, int64_t i, ThreadPool& pool) {
  const auto t0 = Clock::now();
  m.begin();
  const auto t1 = Clock::now();
  m.accumulate(b, 1 / train::weight_sum(b));
  const auto t2 = Clock::now();
  m.gradients();
  optimizer.step(m.trained(), i, 1e-4, train::clip_scale(train::gradient_norm(m.trained(), pool), 1), pool);
  m.changed();
  return {seconds(t0, t1), seconds(t1, t2), seconds(t2, Clock::now())};
}

int bench(const Args& a) {
  if (a.batch < 1 || a.length < 1 || a.steps < 1 || a.segment < 0) {
    fail_usage("[bench] --batch, --length and --steps must be at least 1, --segment at least 0");
  }
  const Session s = open_session(a.model, NeedTokenizer::kNo);
  train::TrainModelOptions options;
  options.checkpoint = a.checkpoint;
  options.segment = a.segment;
  options.weights = a.model.compute == "f32" ? DType::kF32 : DType::kBF16;
  const Resident before = resident_now();
  train::TrainModel m(s.model().spec(), s.model().params(), s.model().runtime(), options);
  const auto optimizer = train::make_optimizer({}, m.trained());
  const data::Batch batch = random_batch(a, m.spec().vocab_size);
  step(m, *optimizer, batch, 1, *s.pool);  // warm
  const int64_t peak = peak_resident();    // before the meter's array is there
  RooflineMeter meter(*s.pool);
  Roofline roof = meter.sample();
  Phases best;
  for (int64_t i = 0; i < a.steps; ++i) {
    const Phases p = step(m, *optimizer, batch, i + 2, *s.pool);
    if (i == 0 || p.total() < best.total()) best = p;
    roof = better(roof, meter.sample());
    Signals::check();
  }
  int64_t n_params = 0;
  for (const train::Trained& t : m.trained()) n_params += t.value.numel();
  const auto tokens = static_cast<double>(batch.n_tokens());
  const double rate = tokens / best.total(), gflops = 6e-9 * static_cast<double>(n_params) * rate;
  if (a.json) {
    print_json({{"tokens_per_second", rate},
                {"parameters", n_params},
                {"gflops_6n", gflops},
                {"f32_peak_gflops", roof.f32_gflops},
                {"share_of_f32_peak", gflops / roof.f32_gflops},
                {"seconds", {{"begin", best.begin}, {"pass", best.pass}, {"update", best.update}}},
                {"peak_resident_bytes", peak},
                {"resident_before_bytes", before.total()}});
    return 0;
  }
  std::printf("%lld x %lld tokens a step: %.0f tokens/s (best of %lld steps)\n", static_cast<long long>(a.batch),
              static_cast<long long>(a.length), rate, static_cast<long long>(a.steps));
  std::printf("  weights packed %.3f s, forward and backward %.3f s, update %.3f s\n", best.begin, best.pass,
              best.update);
  std::printf(
      "  6N = %.1f MFLOP a token: %.1f GFLOP/s, %.0f %% of the %.1f GFLOP/s that f32 multiply-adds reach here\n",
      6e-6 * static_cast<double>(n_params), gflops, 100 * gflops / roof.f32_gflops, roof.f32_gflops);
  std::printf("  memory at its peak %.0f MiB, %.0f MiB before\n", static_cast<double>(peak) / (1 << 20),
              static_cast<double>(before.total()) / (1 << 20));
  return 0;
}

}  // namespace

void add_bench_train(Command& root) {
  auto a = std::make_shared<Args>();
  Command c = root.subcommand("train", "Measure training steps: forward, backward, clipping and AdamW on random ids");
  add_model_options(c, a->model, true, true, {.tokenizer = false});
  c.option("-b,--batch", a->batch, "sequences of a step");
  c.option("--length", a->length, "tokens of a sequence");
  c.option("--steps", a->steps, "measured after one that warms up; the best counts");
  c.option("--segment", a->segment, "tokens of a sequence on the tape at once; 0: all");
  c.flag("--checkpoint", a->checkpoint, "layers keep their inputs only and are computed again on the way back");
  c.flag("--json", a->json, "print JSON");
  c.footer("With --compute bf16 matrices are rounded to bf16 before each step; the masters stay f32.");
  c.run([a] { return bench(*a); });
}

}  // namespace krait::cli
