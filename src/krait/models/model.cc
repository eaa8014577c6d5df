#include "krait/models/model.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "krait/core/error.h"
#include "krait/io/mapped_file.h"
#include "krait/mixers/registry.h"
#include "krait/models/adapted.h"

namespace krait {
namespace {

// What is packed is not needed where it lay in the file. `finite` becomes false if the values are not.
Weight packed(const Runtime& rt, const Tensor& rows, const std::string& name, bool& finite) {
  Weight w(rt, rows, name);
  finite = finite && w.finite();
  io::MappedFile::release_pages(rows.bytes(), static_cast<size_t>(rows.nbytes()));
  return w;
}

// A mixer's view of the store: names below its prefix.
class PrefixedParams final : public ParamSource {
 public:
  PrefixedParams(const ParamStore& store, const Adapters& adapters, const Runtime& rt, std::string prefix, bool& finite)
      : store_(store), adapters_(adapters), runtime_(rt), prefix_(std::move(prefix)), finite_(finite) {}
  bool has(const std::string& name) const override { return store_.has(prefix_ + name); }
  Tensor f32(const std::string& name) const override {
    const Tensor v = store_.f32(prefix_ + name);
    derived(name, v, [](float, float dv) { return dv; });
    return v;
  }
  Tensor neg_exp(const std::string& name) const override {
    const Tensor v = store_.neg_exp(prefix_ + name);
    derived(name, v, [](float value, float dv) { return value * dv; });
    return v;
  }
  Tape* tape() const override { return runtime_.parameters; }
  Weight matmul(const std::string& name) const override {
    Weight w = packed(runtime_, store_.get(prefix_ + name).value, prefix_ + name, finite_);
    w.adapt(low_ranks(runtime_, adapters_, prefix_ + name));
    return w;
  }
  ConvTaps taps(const std::string& name) const override {
    return adapted_taps(runtime_, adapters_, prefix_ + name, f32(name));
  }

 private:
  // v, elementwise a function of the parameter `name`, gets gradients if that does: dp(v, dv) is the way back.
  template <class F>
  void derived(const std::string& name, const Tensor& v, F dp) const {
    if (tape() == nullptr) return;
    Gradients& g = tape()->gradients();
    const Param& p = store_.get(prefix_ + name);
    if (!g.watched(p.value)) return;
    if (p.neg_exp)
      throw Error(ErrorCode::kInternal, "[model] " + prefix_ + name + " is stored as -exp(p): not trainable");
    g.watch(v);
    tape()->record([&g, param = p.value, v, dp] {
      const Tensor dv = g.of(v);
      float* sum = g.of(param).f32();
      for (int64_t i = 0; i < v.numel(); ++i) sum[i] += dp(v.f32()[i], dv.f32()[i]);
    });
  }

  const ParamStore& store_;
  const Adapters& adapters_;
  const Runtime& runtime_;
  std::string prefix_;
  bool& finite_;
};

Tensor gather_rows(const Tensor& x, std::span<const int64_t> rows) {
  const int64_t D = x.dim(1);
  Tensor y = Tensor::empty({static_cast<int64_t>(rows.size()), D});
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(y.f32() + static_cast<int64_t>(i) * D, x.f32() + rows[i] * x.stride(0),
                static_cast<size_t>(D) * sizeof(float));
  }
  return y;
}

}  // namespace

Model::Model(ModelSpec spec, ParamStore params, Runtime runtime, Adapters adapters, int32_t default_adapter)
    : spec_(std::move(spec)),
      params_(std::move(params)),
      runtime_(runtime),
      adapters_(std::move(adapters)),
      fingerprints_(1 + adapters_.size()) {
  runtime_.default_adapter = default_adapter;
  for (const auto& a : adapters_) check_adapter(*a, spec_);
  // The biggest first: while it is packed, both copies of it are in memory.
  const char* head = spec_.tie_embeddings ? kEmbeddingName : kHeadName;
  head_ = packed(runtime_, params_.get(head).value, head, finite_);
  embedding_low_rank_ = embedding_low_ranks(runtime_, adapters_);
  const PrefixedParams shell(params_, adapters_, runtime_, "", finite_);
  for (const SubBlockSpec& b : spec_.blocks) {
    const PrefixedParams source(params_, adapters_, runtime_, b.prefix + ".", finite_);
    blocks_.push_back({load_norm(shell, b.norm), find_mixer(b.mixer).make(b.config, spec_.d_model, source)});
  }
  final_norm_ = load_norm(shell, kFinalNormName);
  make_initial_states();
  runtime_.parameters = nullptr;
}

NormWeights Model::load_norm(const ParamSource& source, const std::string& name) const {
  NormWeights n;
  n.kind = spec_.rms_norm ? NormKind::kRms : NormKind::kLayer;
  n.w = source.f32(name + ".weight");
  if (!spec_.rms_norm) n.b = source.f32(name + ".bias");
  n.eps = static_cast<float>(spec_.norm_eps);
  return n;
}

std::vector<StateSpec> Model::state_specs() const {
  std::vector<StateSpec> specs;
  for (const Block& b : blocks_) specs.push_back(b.mixer->state_spec());
  return specs;
}

int64_t Model::param_count() const {
  int64_t n = 0;
  for (const ParamSpec& p : model_params(spec_)) n += p.shape.numel();
  return n;
}

int64_t Model::resident_bytes() const {
  int64_t n = 0;
  for (const ParamSpec& p : model_params(spec_)) {
    if (is_packed(p, spec_)) {
      const DType t = params_.get(p.name).value.dtype();
      n += static_cast<int64_t>(runtime_.kernels->packed_weight_bytes(t, p.shape[0], p.shape[1]));
    } else if (p.role == ParamRole::kVector) {
      n += p.shape.numel() * size_of(DType::kF32);
    }
  }
  return n;
}

int64_t Model::activation_bytes(int64_t tokens) const {
  int64_t widest = 0;  // floats a token that live at once inside one sub-block: inputs and outputs of its matmuls
  int64_t packed = 0;  // of the widest input, which the kernels arrange anew
  for (const SubBlockSpec& b : spec_.blocks) {
    int64_t width = 0;
    for (const ParamSpec& p : find_mixer(b.mixer).params(b.config, spec_.d_model)) {
      if (p.role != ParamRole::kMatmul) continue;
      width += p.shape[0] + p.shape[1];
      packed = std::max(packed, p.shape[1]);
    }
    widest = std::max(widest, width);
  }
  return (widest + packed + 2 * spec_.d_model) * tokens * size_of(DType::kF32);
}

uint64_t Model::fingerprint(int32_t adapter) const {
  const std::lock_guard lock(fingerprint_mutex_);
  if (!fingerprints_[0]) fingerprints_[0] = base_fingerprint();
  auto& f = fingerprints_[static_cast<size_t>(1 + adapter)];
  if (!f) f = hash_of(*adapters_[static_cast<size_t>(adapter)], *fingerprints_[0]);
  return *f;
}

uint64_t Model::base_fingerprint() const {
  XXH64_hash_t h = 0;
  const auto mix = [&h](const void* p, size_t n) { h = XXH3_64bits_withSeed(p, n, h); };
  const auto mix_text = [&](const std::string& s) { mix(s.data(), s.size()); };
  mix_text(fmt::format("{} {} {} {} {} {}", spec_.architecture, spec_.rms_norm, spec_.norm_eps, spec_.tie_embeddings,
                       spec_.vocab_size, static_cast<int>(runtime_.compute)));
  for (const SubBlockSpec& b : spec_.blocks) {
    mix_text(b.mixer);
    for (const auto& [key, value] : b.config.values()) mix_text(fmt::format("{}={}", key, value));
  }
  for (const ParamSpec& p : model_params(spec_)) {
    // Vectors count as the f32 values they act with, so that a conversion which widens them keeps the fingerprint.
    const Param& param = params_.get(p.name);
    const bool widened = p.role == ParamRole::kVector && !param.neg_exp;
    const Tensor t = widened ? params_.f32(p.name) : param.value;
    mix_text(fmt::format("{} {} {} {}", p.name, t.shape().str(), name_of(t.dtype()), param.neg_exp));
    mix(t.bytes(), static_cast<size_t>(t.nbytes()));
    io::MappedFile::release_pages(t.bytes(), static_cast<size_t>(t.nbytes()));
  }
  return h;
}

void Model::check_batch(std::span<const int32_t> ids, const SeqSpans& spans, const SlotStore& states) const {
  const auto T = static_cast<int64_t>(ids.size());
  bool ok = spans.n_tokens() == T && spans.offset.size() == spans.slot.size() + 1 && spans.offset[0] == 0 &&
            (spans.adapter.empty() || spans.adapter.size() == spans.slot.size());
  for (const int32_t a : spans.adapter) ok = ok && a >= -1 && a < static_cast<int64_t>(adapters_.size());
  for (int64_t s = 0; ok && s < spans.n_seqs(); ++s) {
    const int32_t slot = spans.slot[static_cast<size_t>(s)];
    ok = spans.length(s) >= 0 && slot >= 0 && slot < states.n_slots();
  }
  if (!ok) throw Error(ErrorCode::kInternal, fmt::format("[forward] spans, slots or adapters do not fit {} ids", T));
}

Tensor Model::forward(std::span<const int32_t> ids, const SeqSpans& spans, SlotStore& states,
                      std::span<const int64_t> logit_rows) const {
  check_batch(ids, spans, states);
  for (const int64_t r : logit_rows) {
    if (r < 0 || r >= spans.n_tokens()) {
      throw Error(ErrorCode::kInternal, fmt::format("[forward] there is no row {} of {} ids", r, ids.size()));
    }
  }
  ForwardContext ctx{runtime_, spans};
  const auto [residual, h] = run_blocks(ctx, ids, states);
  if (logit_rows.empty()) return Tensor::empty({0, padded_vocab_size()});
  Tensor last = gather_rows(residual, logit_rows);
  const Tensor last_h = h.defined() ? gather_rows(h, logit_rows) : Tensor{};
  return linear(ctx, add_norm(ctx, last_h, last, final_norm_), head_);
}

Tensor Model::hidden(std::span<const int32_t> ids, const SeqSpans& spans, SlotStore& states) const {
  check_batch(ids, spans, states);
  ForwardContext ctx{runtime_, spans};
  auto [residual, h] = run_blocks(ctx, ids, states);
  return add_norm(ctx, h, residual, final_norm_);
}

Model::Stream Model::run_blocks(ForwardContext& ctx, std::span<const int32_t> ids, SlotStore& states) const {
  Stream s{embedded(ctx, ids), {}};
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Tensor u = add_norm(ctx, s.h, s.residual, blocks_[i].norm);
    s.h = blocks_[i].mixer->forward(ctx, u, states.block(i));
  }
  return s;
}

Tensor Model::embedded(ForwardContext& ctx, std::span<const int32_t> ids) const {
  Tensor y = embed(ctx, params_.get(kEmbeddingName).value, ids, spec_.tie_embeddings);
  if (!embedding_low_rank_.empty()) add_low_rank(ctx, ids, embedding_low_rank_, y);
  return y;
}

}  // namespace krait
