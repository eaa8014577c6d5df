// The texts of krait quantize: what to calibrate on and what to evaluate on, as token ids.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "krait/quant/report.h"
#include "krait/text/tokenizer.h"

namespace krait::cli {

inline constexpr int64_t kLeastCalibration = 16;  // tokens; fewer say nothing about columns

struct TextChoice {
  std::string calibrate, eval;  // files, "-": standard input; empty: none, the default
  int64_t calibration_tokens, evaluation_tokens;
  bool evaluate, lossy_utf8;
};

struct Texts {
  std::vector<int32_t> calibration, evaluation;
  std::optional<quant::TextUse> calibration_use;
  quant::TextUse evaluation_use;
};

// The evaluation text is `eval`, else what follows the calibration tokens in their text (a fifth of it is kept for that
// if it is short), else a built-in one. Of a text no more is read than those tokens can need. Throws kBadData on a text
// that is too short or not UTF-8 (unless lossy), kFailed on what is neither a file nor a pipe.
Texts read_texts(const TextChoice&, const text::Tokenizer&);

}  // namespace krait::cli
