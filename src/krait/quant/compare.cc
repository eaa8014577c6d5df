#include "krait/quant/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "krait/core/error.h"
#include "krait/infer/score.h"
#include "krait/infer/state.h"
#include "krait/quant/relative_rms.h"

namespace krait::quant {
namespace {

// What two rows of logits say about each other.
struct RowComparison {
  double kl = 0, log_sum_p = 0, log_sum_q = 0;
  bool same_top = false;
};

RowComparison compare_rows(const float* p, const float* q, int64_t V) {
  RowComparison r;
  r.log_sum_p = log_sum_exp({p, static_cast<size_t>(V)});
  r.log_sum_q = log_sum_exp({q, static_cast<size_t>(V)});
  r.same_top = std::max_element(p, p + V) - p == std::max_element(q, q + V) - q;
  for (int64_t i = 0; i < V; ++i) {
    const double log_p = static_cast<double>(p[i]) - r.log_sum_p, log_q = static_cast<double>(q[i]) - r.log_sum_q;
    r.kl += std::exp(log_p) * (log_p - log_q);
  }
  r.kl = std::max(r.kl, 0.0);  // rounding of sums that cancel
  return r;
}

void check_ids(const char* op, std::span<const int32_t> ids, int64_t vocabulary) {
  if (ids.empty()) fail_data(fmt::format("[{}] the text has no tokens", op));
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocabulary) continue;
    fail_data(fmt::format("[{}] token {} of the text is id {}, the model has {}", op, i, ids[i], vocabulary));
  }
}

// Both models on the same tokens, chunk by chunk.
class Pair {
 public:
  Pair(const Model& a, const Model& b) : a_(a), b_(b), states_a_(a.state_specs(), 1), states_b_(b.state_specs(), 1) {
    if (a.padded_vocab_size() != b.padded_vocab_size()) {
      fail_data(fmt::format("[compare] the models have {} and {} ids", a.padded_vocab_size(), b.padded_vocab_size()));
    }
    reset();
  }

  void reset() {
    a_.reset_state(states_a_, 0);
    b_.reset_state(states_b_, 0);
  }

  // Compares the logits after each of the last `compared` tokens of `ids` (one forward pass).
  std::vector<RowComparison> read(std::span<const int32_t> ids, int64_t compared) {
    const auto T = static_cast<int64_t>(ids.size());
    std::vector<int64_t> rows(static_cast<size_t>(compared));
    std::iota(rows.begin(), rows.end(), T - compared);
    logits_a_ = a_.forward(ids, SeqSpans::one(T, 0), states_a_, rows);
    logits_b_ = b_.forward(ids, SeqSpans::one(T, 0), states_b_, rows);
    std::vector<RowComparison> out(rows.size());
    const int64_t V = logits_a_.dim(1);
    a_.runtime().pool->parallel_for(compared, [&](int64_t i) {
      out[static_cast<size_t>(i)] = compare_rows(logits_a_.f32() + i * V, logits_b_.f32() + i * V, V);
    });
    return out;
  }

  double log_p(int64_t row, int32_t id, const RowComparison& r) const { return at(logits_a_, row, id) - r.log_sum_p; }
  double log_q(int64_t row, int32_t id, const RowComparison& r) const { return at(logits_b_, row, id) - r.log_sum_q; }
  const SlotStore& states_a() const { return states_a_; }
  const SlotStore& states_b() const { return states_b_; }

 private:
  static double at(const Tensor& logits, int64_t row, int32_t id) {
    return static_cast<double>(logits.f32()[row * logits.dim(1) + id]);
  }
  const Model &a_, &b_;
  SlotStore states_a_, states_b_;
  Tensor logits_a_, logits_b_;
};

struct Squares {
  double difference = 0, size = 0;
};

Squares squares(const Tensor& a, const Tensor& b) {
  Squares s;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const auto x = static_cast<double>(a.f32()[i]), d = static_cast<double>(b.f32()[i]) - x;
    s.difference += d * d;
    s.size += x * x;
  }
  return s;
}

void compare_states(const SlotStore& a, const SlotStore& b, DriftPoint& point) {
  Squares all;
  for (size_t block = 0; block < a.specs().size(); ++block) {
    for (size_t t = 0; t < a.specs()[block].size(); ++t) {
      const StateTensorSpec& spec = a.specs()[block][t];
      StateDrift d;
      d.name = fmt::format("{}.{}", block, spec.name);
      d.angle = spec.dtype == DType::kI32;
      if (d.angle) {
        d.error = diff_phases(a.at(block, t, 0), b.at(block, t, 0)).rms;
      } else {
        const Squares s = squares(a.at(block, t, 0), b.at(block, t, 0));
        d.error = relative_rms(s.difference, s.size);
        all.difference += s.difference;
        all.size += s.size;
      }
      point.states.push_back(std::move(d));
    }
  }
  point.state = relative_rms(all.difference, all.size);
}

}  // namespace

double TextComparison::perplexity_original() const { return std::exp(loss_original); }
double TextComparison::perplexity_quantized() const { return std::exp(loss_quantized); }

TextComparison compare(const Model& original, const Model& quantized, std::span<const int32_t> ids, int64_t window,
                       const std::function<void(int64_t)>& advance) {
  const auto n = static_cast<int64_t>(ids.size());
  check_ids("compare", ids, original.padded_vocab_size());
  const int64_t W = window > 0 ? window : n;
  Pair pair(original, quantized);
  TextComparison r;
  for (int64_t first = 0, length = 0; first < n; first += length) {
    if (first % W == 0) pair.reset();
    length = std::min({kPrefillChunk, W - first % W, n - first});
    const auto rows = pair.read(ids.subspan(static_cast<size_t>(first), static_cast<size_t>(length)), length);
    for (int64_t i = 0; i < length; ++i) {
      const RowComparison& row = rows[static_cast<size_t>(i)];
      r.mean_kl += row.kl;
      r.max_kl = std::max(r.max_kl, row.kl);
      r.same_top += row.same_top ? 1 : 0;
      if (first + i + 1 == n) continue;
      const int32_t next = ids[static_cast<size_t>(first + i + 1)];
      r.loss_original -= pair.log_p(i, next, row);
      r.loss_quantized -= pair.log_q(i, next, row);
    }
    advance(length);
  }
  r.tokens = n;
  r.targets = n - 1;
  r.mean_kl /= static_cast<double>(n);
  r.same_top /= static_cast<double>(n);
  r.loss_original /= static_cast<double>(std::max<int64_t>(r.targets, 1));
  r.loss_quantized /= static_cast<double>(std::max<int64_t>(r.targets, 1));
  return r;
}

std::vector<DriftPoint> drift(const Model& original, const Model& quantized, std::span<const int32_t> ids,
                              std::span<const int64_t> positions, const std::function<void(int64_t)>& advance) {
  check_ids("drift", ids, original.padded_vocab_size());
  Pair pair(original, quantized);
  std::vector<DriftPoint> out;
  int64_t read = 0;
  std::vector<int32_t> chunk;
  // Reads up to `until`, comparing the distributions of those tokens or none; returns the sum of their KL.
  const auto go_on = [&](int64_t until, bool compared) {
    double kl = 0;
    while (read < until) {
      const int64_t length = std::min(kPrefillChunk, until - read);
      chunk.resize(static_cast<size_t>(length));
      for (size_t i = 0; i < chunk.size(); ++i) chunk[i] = ids[(static_cast<size_t>(read) + i) % ids.size()];
      for (const RowComparison& row : pair.read(chunk, compared ? length : 0)) kl += row.kl;
      read += length;
      advance(length);
    }
    return kl;
  };
  for (const int64_t position : positions) {
    const int64_t compared = std::min(kDriftWindow, position - read);
    go_on(position - compared, false);
    DriftPoint point;
    point.tokens = position;
    point.mean_kl = go_on(position, true) / static_cast<double>(std::max<int64_t>(compared, 1));
    compare_states(pair.states_a(), pair.states_b(), point);
    out.push_back(std::move(point));
  }
  return out;
}

}  // namespace krait::quant
