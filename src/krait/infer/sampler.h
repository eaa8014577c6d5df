// Sampler: a row of logits and a sequence's history -> the next token. Random draws are counter-based: draw i of
// (seed, stream) is the same whatever else runs, and a resumed sequence goes on at its counter.
#pragma once
#include <map>
#include <span>
#include <vector>

#include "krait/infer/token_history.h"

namespace krait {

// The options, in the order in which they act:
//   repetition penalty, presence and frequency penalties, logit bias  -> changed logits
//   top-k, temperature, top-p, min-p                                  -> the tokens that may be drawn
// Penalties count every token the sequence has read: prompt and generated alike.
struct SamplerParams {
  double temperature = 0;         // 0: greedy, the largest changed logit
  int64_t top_k = 0;              // keep the k largest logits; 0: all
  double top_p = 1;               // (0, 1]: drop the least probable tokens whose cumulative probability is <= 1 − top_p
  double min_p = 0;               // [0, 1]: keep p >= min_p · p_max
  double repetition_penalty = 1;  // 0.001 .. 1000; once a seen token: logit · r if negative, logit / r otherwise
  double presence_penalty = 0;    // ±1000; subtracted once from every seen token
  double frequency_penalty = 0;   // ±1000; subtracted as often as the token was seen
  int64_t penalty_window = -1;    // tokens back that penalties look: 1 .. TokenHistory::kRecent, -1: all
  std::map<int32_t, double> logit_bias;  // ±1e6, added to the logit; −infinity forbids the token
  uint64_t seed = 0, stream = 0;         // of a sequence that begins without a State

  bool cuts() const { return top_k > 0 || top_p < 1 || min_p > 0; }
  bool changes() const { return penalizes() || !logit_bias.empty(); }
  bool penalizes() const { return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0; }
  bool operator==(const SamplerParams&) const = default;
};

// Throws kUsage, naming the option and its value, if one is out of range or cannot apply beside the others (top-k,
// top-p and min-p need a temperature; a window needs a penalty). `vocab`: ids below it may be biased.
void validate(const SamplerParams&, int64_t vocab);

// A place in a stream of random numbers.
struct RngState {
  uint64_t seed = 0, stream = 0;
  uint64_t counter = 0;  // draws made
  bool operator==(const RngState&) const = default;
};

struct TokenLogit {
  int32_t id = 0;
  float logit = 0;
};

struct TokenLogprob {
  int32_t id = 0;
  double logprob = 0;  // natural log
  bool operator==(const TokenLogprob&) const = default;
};

class Sampler {
 public:
  // `vocab`: ids at and above it (padding, ids without text) are never chosen. Validates the parameters.
  Sampler(SamplerParams params, int64_t vocab);

  const SamplerParams& params() const { return params_; }
  int64_t vocab() const { return vocab_; }

  // The next token. logits: [>= vocab]. Advances `rng` by one draw unless greedy. Equal logits: the lowest id wins; a
  // draw walks the tokens that may be drawn in order of their ids.
  // Throws kBadData if a logit is NaN or +infinity, or if no token may be chosen.
  int32_t pick(std::span<const float> logits, const TokenHistory& history, RngState& rng) const;

  // Logits after penalties and bias, by id. Throws as pick() does.
  std::vector<float> changed(std::span<const float> logits, const TokenHistory& history) const;

  // What pick() draws from: the tokens that may be chosen, by id, with the logs of their (normalised) probabilities.
  // Greedy: one token.
  std::vector<TokenLogprob> distribution(std::span<const float> logits, const TokenHistory& history) const;

 private:
  struct Weighted {
    int32_t id;
    double weight;  // probability relative to the likeliest token's
  };
  // By id. What it looks at is the thread's, until its next row.
  struct Row {
    std::span<const float> logits;  // changed
    float best;
    std::span<const double> weights, sums;  // exp_row(); none if greedy
  };
  std::span<const float> of_vocab(std::span<const float> logits) const;
  void change(std::span<const float> logits, const TokenHistory& history, std::vector<float>& out) const;
  Row row(std::span<const float> logits, const TokenHistory& history) const;
  std::vector<Weighted> kept(const Row& row) const;
  static int32_t draw(const std::vector<Weighted>& from, double uniform);
  static int32_t draw(const Row& row, double uniform);

  SamplerParams params_;
  int64_t vocab_;
};

// Throws kBadData if a logit is NaN or +infinity.
void check_logits(std::span<const float> logits);

struct Logprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  // most probable first; equal ones by id
};
// log softmax of the model's own logits [vocab] (before penalties, bias and temperature): `chosen`, and the `top_n`
// best.
Logprobs logprobs(std::span<const float> logits, int32_t chosen, int64_t top_n);

}  // namespace krait
