// Names of GGUF files for Mamba models: what the reader (families/gguf.cc) and the writer (export_gguf.cc) share.
// spec/gguf.md §2, §3 for llama.cpp's, docs/formats.md for our own.
#pragma once
#include <array>
#include <string>
#include <string_view>

namespace krait {

// The architecture of files whose mathematics llama.cpp's `mamba` and `mamba2` lack: "krait-mamba2". Programs that do
// not know it refuse such a file instead of computing something else.
inline constexpr std::string_view kOwnArchitecture = "krait-";

// Keys of our own. A file with another key below "krait." is refused.
namespace gguf_key {
inline constexpr const char* kVocabSize = "krait.vocab_size";  // rows that stand for tokens, if fewer than stored
inline constexpr const char* kEosIds = "krait.eos_token_ids";  // if more than one
inline constexpr const char* kDtMin = "krait.init.dt_min";     // of fresh weights, as all of krait.init
inline constexpr const char* kDtMax = "krait.init.dt_max";
inline constexpr const char* kDtFloor = "krait.init.dt_init_floor";
inline constexpr const char* kDtScale = "krait.init.dt_scale";
inline constexpr const char* kAInitMin = "krait.init.a_init_min";
inline constexpr const char* kAInitMax = "krait.init.a_init_max";
inline constexpr const char* kDtBcEps = "krait.ssm.dt_b_c_rms_epsilon";
inline constexpr const char* kDtLimitMin = "krait.ssm.dt_limit_min";
inline constexpr const char* kDtLimitMax = "krait.ssm.dt_limit_max";
inline constexpr const char* kInnerWidth = "krait.ssm.d_inner";  // with the part that bypasses the state
inline constexpr const char* kPerChannelD = "krait.ssm.d_per_channel";
inline constexpr const char* kGatedNorm = "krait.ssm.gated_norm";
inline constexpr const char* kNormBeforeGate = "krait.ssm.norm_before_gate";
inline constexpr const char* kInitialState = "krait.ssm.initial_state";
inline constexpr const char* kNormEps = "krait.ssm.norm_epsilon";  // of the mixer's own norms
inline constexpr const char* kMimoRank = "krait.ssm.mimo_rank";    // present: MIMO
inline constexpr const char* kAngles = "krait.ssm.rope_angles";
inline constexpr const char* kOutputNorm = "krait.ssm.output_norm";
inline constexpr const char* kAFloor = "krait.ssm.a_floor";
inline constexpr const char* kSoftplusA = "krait.ssm.softplus_a";
inline constexpr std::array kAll = {kVocabSize,      kEosIds,       kDtMin,      kDtMax,      kDtFloor,     kDtScale,
                                    kDtBcEps,        kDtLimitMin,   kDtLimitMax, kInnerWidth, kPerChannelD, kGatedNorm,
                                    kNormBeforeGate, kInitialState, kNormEps,    kMimoRank,   kAngles,      kOutputNorm,
                                    kAFloor,         kSoftplusA,    kAInitMin,   kAInitMax};
}  // namespace gguf_key

// The tensor that holds the parameter of that canonical name; throws kInternal if there is none.
std::string gguf_tensor_name(const std::string& canonical);
// Whether that tensor holds −exp(p).
bool gguf_holds_neg_exp(const std::string& canonical);

}  // namespace krait
