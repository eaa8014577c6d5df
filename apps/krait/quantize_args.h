// The options of krait quantize, and what can be said against them before anything is read.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cli.h"
#include "krait/core/dtype.h"

namespace krait::cli {

struct QuantizeArgs {
  std::string model, out, type = "Q4_K_M", tokenizer, kernels = "auto";
  std::string calibrate, stats, save_stats, report, eval;
  std::vector<std::string> tensor_types;
  int64_t threads = 0, tokens = 16384, eval_tokens = 8192, drift = 10000;
  bool pure = false, strict = false, explain = false, effects = false;
  bool force = false, no_tokenizer = false, allow_requantize = false, lossy_utf8 = false;
};

// Throws kUsage on options that cannot take effect or exclude each other.
void check_usage(const QuantizeArgs&, const Command&);

// Whether OUT and the files of --save-stats and --report may and can be written. Throws kUsage if one exists (without
// --force) or is an input or another output, kFailed if the disk says no.
void check_outputs(const QuantizeArgs&);

// REGEX=TYPE, as quant::MixOptions wants them.
std::vector<std::pair<std::string, DType>> parse_overrides(const std::vector<std::string>&);

}  // namespace krait::cli
