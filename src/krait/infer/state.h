// State: one sequence at one position, apart from any model or slot: it can be kept, compared, written to a file and
// put into any slot of the same model. Everything needed to go on is in it, so no token is ever read twice.
#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "krait/infer/sampler.h"
#include "krait/infer/token_history.h"
#include "krait/models/model.h"

namespace krait {

// What a sequence carries beside its mixers' tensors.
struct SequenceHead {
  TokenHistory history;  // position, hash and what penalties need of the tokens read
  RngState rng;          // next draw of its sampler
  Tensor last_logits;  // f32 [V_pad] after the last token; undefined at position 0. Never written to: may be shared, or
                       // a view (not within a State, which owns it)
};

struct State {
  uint64_t model_fingerprint = 0;  // Model::fingerprint() of the model, and the adapter, that it belongs to
  std::string architecture;        // of that model: "mamba2"
  SequenceHead head;
  std::vector<StateSpec> specs;   // one a sub-block
  std::vector<StateView> blocks;  // tensors in the order of `specs`, without the slot dimension; owned

  int64_t position() const { return head.history.position(); }
  int64_t nbytes() const;  // of the tensors and the logits
};

// In what follows, without an adapter: the model's default one.
// The sequence in `slot`, copied.
State snapshot(const Model&, const SlotStore&, int64_t slot, const SequenceHead&, int32_t adapter);
inline State snapshot(const Model& m, const SlotStore& states, int64_t slot, const SequenceHead& head) {
  return snapshot(m, states, slot, head, m.default_adapter());
}
// Throws kBadData, with the reason, unless the state belongs to the model with that adapter.
void check_fits(const Model&, const State&, int32_t adapter);
inline void check_fits(const Model& m, const State& s) { check_fits(m, s, m.default_adapter()); }
// The same of a state that a stranger brings: also no token that the model has not, and no number that is not finite.
void check_foreign(const Model&, const State&, int32_t adapter);
inline void check_foreign(const Model& m, const State& s) { check_foreign(m, s, m.default_adapter()); }
// Puts a state into `slot`. Throws as check_fits() does.
void restore(const Model&, const State&, SlotStore&, int64_t slot, int32_t adapter);
inline void restore(const Model& m, const State& s, SlotStore& states, int64_t slot) {
  restore(m, s, states, slot, m.default_adapter());
}

// Every bit equal: tensors, logits, history, random stream, model.
bool operator==(const State&, const State&);

struct TensorDiff {
  std::string name;  // "3.ssm": sub-block and tensor; "logits"
  Shape shape;
  bool equal = false;  // bit for bit
  bool phase = false;  // i32, turns · 2^32: differences are the shorter way around the circle, in turns
  double max_abs = 0;  // max |a − b|
  double rms = 0;      // sqrt(Σ(a−b)² / Σb²), infinite where b is all zeros and a is not; of phases sqrt(Σ(a−b)² / n)
};
struct StateDiff {
  std::vector<std::string> header;  // names of the header fields that differ
  std::vector<TensorDiff> tensors;
  bool equal() const;
};
// Of two i32 tensors of fixed-point turns (turns · 2^32), the shorter way around the circle; in turns.
struct PhaseDiff {
  double max_abs = 0;
  double rms = 0;  // sqrt(Σ(a−b)² / n); 0 of nothing
};
PhaseDiff diff_phases(const Tensor& a, const Tensor& b);
// Tensor by tensor. Throws kBadData if the two do not have the same tensors.
StateDiff diff(const State& a, const State& b);

// State files (docs/formats.md, "State files"): little-endian, versioned, checksummed, written whole or not at all.
void write_state(const std::filesystem::path&, const State&);
// Throws kBadData with the reason if the bytes are not a whole, unaltered state file of a version that is known.
State read_state(const std::filesystem::path&);
State parse_state(std::span<const std::byte> bytes, const std::string& name);  // `name` is for messages
// Hands the bytes of the file to `sink`, piece by piece.
void encode_state(const State&, const std::function<void(const void*, size_t)>& sink);

inline constexpr uint32_t kStateFileVersion = 1;

}  // namespace krait
