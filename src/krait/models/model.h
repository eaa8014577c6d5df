// Model: embedding, sub-blocks with their norms, final norm, head. Immutable after construction; one Model may serve
// several SlotStores. One forward for prefill, decode and scoring.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "krait/models/adapter.h"
#include "krait/models/param_store.h"
#include "krait/models/slot_store.h"
#include "krait/ops/loss.h"
#include "krait/ops/low_rank.h"

namespace krait {

class Model {
 public:
  // Packs the matmul operands for the runtime's backend. `params` must hold all of model_params(spec) in their shapes
  // (models/load.h checks that); it is kept for the embedding table and the fingerprint.
  // `adapters`: what sequences may be read with (SeqSpans::adapter); those that say nothing with `default_adapter`, −1:
  // the model as it is. Throws kBadData if one does not fit.
  Model(ModelSpec spec, ParamStore params, Runtime runtime, Adapters adapters = {}, int32_t default_adapter = -1);

  const ModelSpec& spec() const { return spec_; }
  const Runtime& runtime() const { return runtime_; }
  const ParamStore& params() const { return params_; }
  int64_t vocab_size() const { return spec_.vocab_size; }                // ids below it are tokens
  int64_t padded_vocab_size() const { return spec_.padded_vocab_size; }  // width of a row of logits
  const Adapters& adapters() const { return adapters_; }
  int32_t default_adapter() const { return runtime_.default_adapter; }
  std::vector<StateSpec> state_specs() const;  // one a sub-block
  bool finite() const { return finite_; }      // no packed matrix holds an infinity or NaN
  int64_t param_count() const;                 // tied tensors counted once

  // Bytes of weights a running model touches: packed matrices, vectors, and embedding rows on disk or in memory.
  int64_t resident_bytes() const;
  // Bytes of activations of a forward pass over that many tokens, at their peak.
  int64_t activation_bytes(int64_t tokens) const;

  // 64-bit hash of the architecture, all weights, the compute precision and the adapter: what a saved State must match.
  // Computed at the first call. Without an argument: with the default adapter.
  uint64_t fingerprint(int32_t adapter) const;
  uint64_t fingerprint() const { return fingerprint(default_adapter()); }

  // Reads ids [T] (packed as `spans` says) on top of the states at the spans' slots, which it updates, and writes the
  // logits after the tokens `logit_rows` (indices into ids, ascending) -> f32 [rows, padded_vocab_size].
  // Throws kBadData on an id outside the vocabulary, kInternal on inconsistent spans; states are then unchanged.
  Tensor forward(std::span<const int32_t> ids, const SeqSpans& spans, SlotStore& states,
                 std::span<const int64_t> logit_rows) const;

  // What the head reads after each of the tokens -> f32 [T, d_model]; ids, spans and states as in forward().
  Tensor hidden(std::span<const int32_t> ids, const SeqSpans& spans, SlotStore& states) const;
  const Weight& head() const { return head_; }

  // The losses of the next tokens, and with a tape (of a model whose runtime was made for training) all that is needed
  // for their gradients. ids, spans and states as in forward(); `options.vocab_size` is set here. `checkpoint`:
  // sub-blocks keep their input only and are computed again on the way back, to the same bits. `dropout`: of adapters;
  // null: none. The model, `states` and `dropout` must outlive the tape.
  TokenLosses loss(std::span<const int32_t> ids, const SeqSpans& spans, SlotStore& states, LossOptions options,
                   Tape* tape = nullptr, bool checkpoint = false, const Dropout* dropout = nullptr) const;

  // Puts the state a sequence begins with into `slot`. Without an adapter: with the default one.
  void reset_state(SlotStore& states, int64_t slot, int32_t adapter) const;
  void reset_state(SlotStore& states, int64_t slot) const { reset_state(states, slot, default_adapter()); }
  // The gradients of the states at `slot`, as of reset_state() with the default adapter, pass to learned initial
  // states.
  void reset_state_backward(Gradients&, SlotStore& states, int64_t slot) const;

 private:
  struct Block {
    NormWeights norm;
    std::unique_ptr<Mixer> mixer;
  };
  NormWeights load_norm(const ParamSource& source, const std::string& name) const;
  void check_batch(std::span<const int32_t> ids, const SeqSpans& spans, const SlotStore& states) const;
  void make_initial_states();
  // The residual stream behind the last sub-block, and that block's output, not yet added to it.
  struct Stream {
    Tensor residual, h;
  };
  Stream run_blocks(ForwardContext&, std::span<const int32_t> ids, SlotStore& states) const;
  Tensor embedded(ForwardContext&, std::span<const int32_t> ids) const;
  uint64_t base_fingerprint() const;
  Tensor checkpointed(ForwardContext&, const Block&, const Tensor& residual, StateView& state) const;

  ModelSpec spec_;
  ParamStore params_;
  Runtime runtime_;
  std::vector<Block> blocks_;
  NormWeights final_norm_;
  Weight head_;
  Adapters adapters_;
  std::vector<std::shared_ptr<const EmbeddingLowRank>> embedding_low_rank_;  // [adapters], or empty
  // [adapters][sub-blocks]: what states begin with, in the order of its StateSpec; undefined: as the mixer says.
  std::vector<std::vector<StateView>> initial_states_;
  bool finite_ = true;
  mutable std::mutex fingerprint_mutex_;
  mutable std::vector<std::optional<uint64_t>> fingerprints_;  // [1 + adapters]
};

}  // namespace krait
