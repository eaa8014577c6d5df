// How far a quantized model is from the original: its distributions on a text, its loss, its states far into a text.
#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "krait/models/model.h"

namespace krait::quant {

// Two models over one text, token by token. KL(p ‖ q) in nats, p the original's distribution; all in f64.
struct TextComparison {
  int64_t tokens = 0;   // distributions compared
  int64_t targets = 0;  // of them, followed by a token: what the losses are means over
  double mean_kl = 0, max_kl = 0;
  double same_top = 0;                           // share of positions at which both have the same best token
  double loss_original = 0, loss_quantized = 0;  // nats a token

  double perplexity_original() const;
  double perplexity_quantized() const;
};

// Reads `ids` in windows of that many tokens, states reset at each (0: one window). `advance` is told the tokens of
// each step. Throws kBadData if the models have different vocabularies or `ids` is empty or has one
// that is in none.
TextComparison compare(const Model& original, const Model& quantized, std::span<const int32_t> ids, int64_t window,
                       const std::function<void(int64_t)>& advance);

// The states of one sub-block after the same tokens.
struct StateDrift {
  std::string name;  // "3.ssm": sub-block and tensor
  double error = 0;  // relative RMS, sqrt(Σ (b − a)² / Σ a²); of angles the RMS of the difference, in turns
  bool angle = false;
};
struct DriftPoint {
  int64_t tokens = 0;  // read so far
  double mean_kl = 0;  // over the last kDriftWindow tokens before
  double state = 0;    // relative RMS over all states that are no angles, together
  std::vector<StateDrift> states;
};
inline constexpr int64_t kDriftWindow = 256;

// Reads `ids` again and again without a reset, and stops at each of `positions` (ascending, >= 1).
std::vector<DriftPoint> drift(const Model& original, const Model& quantized, std::span<const int32_t> ids,
                              std::span<const int64_t> positions, const std::function<void(int64_t)>& advance);

}  // namespace krait::quant
