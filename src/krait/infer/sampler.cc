#include "krait/infer/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "krait/core/error.h"
#include "krait/core/rng.h"
#include "krait/infer/exp_row.h"

namespace krait {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

void require(bool ok, const std::string& rule) {
  if (!ok) fail_usage("[sampler] " + rule);
}

// No token is left: the request forbids them all, or the model makes no sense.
[[noreturn]] void fail_none(const SamplerParams& p) {
  throw Error(p.logit_bias.empty() ? ErrorCode::kBadData : ErrorCode::kUsage,
              "[sampler] no token may be chosen: every logit is -infinity");
}

// Larger logit first, equal ones by id: a strict total order, so that every selection below is unique.
bool better(const TokenLogit& a, const TokenLogit& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

bool by_id(const TokenLogit& a, const TokenLogit& b) { return a.id < b.id; }

// Puts the k best to the front, in no particular order.
void select_best(std::vector<TokenLogit>& c, size_t begin, size_t k) {
  if (k < c.size()) std::nth_element(c.begin() + begin, c.begin() + k, c.end(), better);
}

// Drops every token whose cumulative probability, summed from the least probable upwards, is <= 1 − p. Seen from the
// top: a token stays if what stands before it holds less than p of the whole. The most probable one always stays.
// weights: by id; total: of those in `c`.
void keep_top_p(std::vector<TokenLogit>& c, double p, std::span<const double> weights, double total) {
  const auto weight = [&](const TokenLogit& t) { return weights[static_cast<size_t>(t.id)]; };
  // Tokens below this hold together less than half of what is dropped: most of a large vocabulary.
  const double least = (1 - p) * total / (2 * static_cast<double>(c.size()));
  std::erase_if(c, [&](const TokenLogit& t) { return weight(t) < least; });
  double before = 0;
  // The nucleus is small as a rule: sort ever longer beginnings instead of everything.
  for (size_t sorted = 0, k = std::min<size_t>(64, c.size());; k = std::min(c.size(), k * 8)) {
    select_best(c, sorted, k);
    std::sort(c.begin() + sorted, c.begin() + k, better);
    for (; sorted < k; ++sorted) {
      if (sorted > 0 && !(total - before > (1 - p) * total)) {
        c.resize(sorted);
        return;
      }
      before += weight(c[sorted]);
    }
    if (k == c.size()) return;
  }
}

}  // namespace

void validate(const SamplerParams& p, int64_t vocab) {
  const bool draws = p.temperature > 0;
  require(p.temperature >= 0 && std::isfinite(p.temperature),
          fmt::format("temperature is {}, wants >= 0", p.temperature));
  require(p.top_k >= 0, fmt::format("top-k is {}, wants >= 0 (0: all)", p.top_k));
  require(p.top_p > 0 && p.top_p <= 1, fmt::format("top-p is {}, wants 0 < p <= 1", p.top_p));
  require(p.min_p >= 0 && p.min_p <= 1, fmt::format("min-p is {}, wants 0 to 1", p.min_p));
  require(draws || p.top_k == 0, fmt::format("top-k {} has no effect at temperature 0", p.top_k));
  require(draws || p.top_p == 1, fmt::format("top-p {} has no effect at temperature 0", p.top_p));
  require(draws || p.min_p == 0, fmt::format("min-p {} has no effect at temperature 0", p.min_p));
  const auto within = [](double v, double lo, double hi) { return v >= lo && v <= hi; };  // false for NaN
  require(within(p.repetition_penalty, 1e-3, 1e3),
          fmt::format("repetition penalty is {}, wants 0.001 to 1000 (1: none)", p.repetition_penalty));
  require(within(p.presence_penalty, -1e3, 1e3),
          fmt::format("presence penalty is {}, wants ±1000", p.presence_penalty));
  require(within(p.frequency_penalty, -1e3, 1e3),
          fmt::format("frequency penalty is {}, wants ±1000", p.frequency_penalty));
  require(p.penalty_window == -1 || (p.penalty_window >= 1 && p.penalty_window <= TokenHistory::kRecent),
          fmt::format("penalty window is {}, wants 1 to {}, or -1 for all tokens", p.penalty_window,
                      TokenHistory::kRecent));
  require(p.penalty_window == -1 || p.penalizes(),
          fmt::format("penalty window {} has no effect without a penalty", p.penalty_window));
  for (const auto& [id, bias] : p.logit_bias) {
    require(id >= 0 && id < vocab, fmt::format("logit bias for id {}, wants 0 to {}", id, vocab - 1));
    require(within(bias, -1e6, 1e6) || bias == kForbidden,
            fmt::format("logit bias of id {} is {}, wants ±1e6, or -infinity", id, bias));
  }
}

void check_logits(std::span<const float> logits) {
  if (!std::isnan(largest(logits))) return;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] < std::numeric_limits<float>::infinity())) {
      fail_data(fmt::format("[sampler] the logit of id {} is {}", i, logits[i]));
    }
  }
}

Sampler::Sampler(SamplerParams params, int64_t vocab) : params_(std::move(params)), vocab_(vocab) {
  require(vocab >= 1, fmt::format("vocabulary of {} ids", vocab));
  validate(params_, vocab);
}

std::span<const float> Sampler::of_vocab(std::span<const float> logits) const {
  if (static_cast<int64_t>(logits.size()) < vocab_) {
    throw Error(ErrorCode::kInternal, fmt::format("[sampler] {} logits for {} ids", logits.size(), vocab_));
  }
  return logits.first(static_cast<size_t>(vocab_));
}

// logits: of_vocab().
void Sampler::change(std::span<const float> logits, const TokenHistory& history, std::vector<float>& out) const {
  check_logits(logits);
  out.assign(logits.begin(), logits.end());
  if (params_.penalizes()) {
    for (const auto& [id, n] : history.counts_within(params_.penalty_window)) {
      if (id >= vocab_) continue;
      float& x = out[static_cast<size_t>(id)];
      double v = x;
      v = v < 0 ? v * params_.repetition_penalty : v / params_.repetition_penalty;
      v -= params_.presence_penalty + params_.frequency_penalty * static_cast<double>(n);
      x = static_cast<float>(v);
    }
  }
  for (const auto& [id, bias] : params_.logit_bias) {
    float& x = out[static_cast<size_t>(id)];
    x = static_cast<float>(static_cast<double>(x) + bias);
  }
}

// The changed logits, and the probability of every id relative to the likeliest one's.
Sampler::Row Sampler::row(std::span<const float> logits, const TokenHistory& history) const {
  // A row is made for every token: its memory is kept.
  static thread_local std::vector<float> changed_row;
  static thread_local std::vector<double> weights, sums;
  Row r{of_vocab(logits), 0, {}, {}};
  if (params_.changes()) {
    change(r.logits, history, changed_row);
    r.logits = changed_row;
  }
  r.best = largest(r.logits);
  if (std::isnan(r.best)) check_logits(r.logits);
  if (r.best == kForbidden) fail_none(params_);
  if (params_.temperature == 0) return r;
  const size_t blocks = (r.logits.size() + kRowBlock - 1) / kRowBlock;
  weights.resize(blocks * kRowBlock);
  sums.resize(blocks);
  exp_row(r.logits, r.best, params_.temperature, weights, sums);
  r.weights = weights;
  r.sums = sums;
  return r;
}

std::vector<Sampler::Weighted> Sampler::kept(const Row& r) const {
  if (params_.temperature == 0) {
    return {{static_cast<int32_t>(std::ranges::find(r.logits, r.best) - r.logits.begin()), 1}};
  }
  std::vector<TokenLogit> c(r.logits.size());
  for (size_t i = 0; i < c.size(); ++i) c[i] = {static_cast<int32_t>(i), r.logits[i]};
  double total = std::accumulate(r.sums.begin(), r.sums.end(), 0.0);
  if (params_.top_k > 0 && params_.top_k < vocab_) {
    select_best(c, 0, static_cast<size_t>(params_.top_k));
    c.resize(static_cast<size_t>(params_.top_k));
    total = 0;
    for (const TokenLogit& t : c) total += r.weights[static_cast<size_t>(t.id)];
  }
  if (params_.top_p < 1) keep_top_p(c, params_.top_p, r.weights, total);
  if (static_cast<int64_t>(c.size()) < vocab_) std::sort(c.begin(), c.end(), by_id);
  std::vector<Weighted> all;
  all.reserve(c.size());
  for (const TokenLogit& t : c) {
    const double w = r.weights[static_cast<size_t>(t.id)];  // the best token's is 1
    if (w > 0 && w >= params_.min_p) all.push_back({t.id, w});
  }
  return all;
}

std::vector<float> Sampler::changed(std::span<const float> logits, const TokenHistory& history) const {
  std::vector<float> out;
  change(of_vocab(logits), history, out);
  if (std::ranges::max(out) == kForbidden) fail_none(params_);
  return out;
}

int32_t Sampler::pick(std::span<const float> logits, const TokenHistory& history, RngState& state) const {
  const Row r = row(logits, history);
  if (params_.temperature == 0) return kept(r)[0].id;
  Rng rng(state.seed, state.stream, state.counter);
  const double uniform = rng.uniform();
  state.counter = rng.counter();
  return params_.cuts() ? draw(kept(r), uniform) : draw(r, uniform);
}

int32_t Sampler::draw(const std::vector<Weighted>& from, double uniform) {
  double total = 0;
  for (const Weighted& k : from) total += k.weight;
  const double target = uniform * total;
  double sum = 0;
  for (const Weighted& k : from) {
    sum += k.weight;
    if (target < sum) return k.id;
  }
  return from.back().id;
}

// From all ids: block by block first.
int32_t Sampler::draw(const Row& r, double uniform) {
  const double target = uniform * std::accumulate(r.sums.begin(), r.sums.end(), 0.0);
  double sum = 0;
  int32_t last = 0;  // that may be drawn
  for (size_t b = 0; b < r.sums.size(); ++b) {
    if (r.sums[b] == 0 || (target >= sum + r.sums[b] && b + 1 < r.sums.size())) {
      sum += r.sums[b];
      continue;
    }
    for (size_t i = b * kRowBlock; i < std::min((b + 1) * kRowBlock, r.logits.size()); ++i) {
      if (r.weights[i] == 0) continue;
      sum += r.weights[i];
      last = static_cast<int32_t>(i);
      if (target < sum) return last;
    }
  }
  return last;
}

std::vector<TokenLogprob> Sampler::distribution(std::span<const float> logits, const TokenHistory& history) const {
  const std::vector<Weighted> all = kept(row(logits, history));
  double total = 0;
  for (const Weighted& k : all) total += k.weight;
  std::vector<TokenLogprob> out;
  out.reserve(all.size());
  for (const Weighted& k : all) out.push_back({k.id, std::log(k.weight / total)});
  return out;
}

Logprobs logprobs(std::span<const float> logits, int32_t chosen, int64_t top_n) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - largest);
  const double norm = largest + std::log(sum);
  const auto entry = [&](int32_t id) {
    return TokenLogprob{id, static_cast<double>(logits[static_cast<size_t>(id)]) - norm};
  };
  Logprobs out;
  out.chosen = entry(chosen);
  if (top_n > 0) {
    std::vector<TokenLogit> c(logits.size());
    for (size_t i = 0; i < c.size(); ++i) c[i] = {static_cast<int32_t>(i), logits[i]};
    const size_t n = std::min(static_cast<size_t>(top_n), c.size());
    std::partial_sort(c.begin(), c.begin() + static_cast<int64_t>(n), c.end(), better);
    for (size_t i = 0; i < n; ++i) out.top.push_back(entry(c[i].id));
  }
  return out;
}

}  // namespace krait
