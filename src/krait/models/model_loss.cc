// The training side of Model.
#include "krait/models/model.h"
#include "krait/ops/states.h"

namespace krait {
namespace {

std::vector<Tensor> gather(const SeqSpans& spans, const StateView& state) {
  std::vector<Tensor> r;
  for (const Tensor& t : state) r.push_back(gather_states(spans, t));
  return r;
}

void scatter(const SeqSpans& spans, const std::vector<Tensor>& from, StateView& state) {
  for (size_t i = 0; i < state.size(); ++i) scatter_states(spans, from[i], state[i]);
}

}  // namespace

// norm and mixer of one sub-block; only the residual stream and the states before it are kept.
Tensor Model::checkpointed(ForwardContext& ctx, const Block& block, const Tensor& residual, StateView& state) const {
  const std::vector<Tensor> before = gather(ctx.spans, state);
  ForwardContext inference{runtime_, ctx.spans, nullptr, ctx.dropout};
  const Tensor h = block.mixer->forward(inference, norm(inference, residual, block.norm), state);
  ctx.tape->record([this, &block, &g = ctx.tape->gradients(), spans = ctx.spans, dropout = ctx.dropout, before,
                    residual, state, h]() mutable {
    const std::vector<Tensor> now = gather(spans, state);
    scatter(spans, before, state);
    Tape again(g);
    ForwardContext recording{runtime_, spans, &again, dropout};
    const Tensor same = block.mixer->forward(recording, norm(recording, residual, block.norm), state);
    g.pass_on(h, same);
    again.backward();
    scatter(spans, now, state);
  });
  return h;
}

TokenLosses Model::loss(std::span<const int32_t> ids, const SeqSpans& spans, SlotStore& states, LossOptions options,
                        Tape* tape, bool checkpoint, const Dropout* dropout) const {
  check_batch(ids, spans, states);
  options.vocab_size = vocab_size();
  ForwardContext ctx{runtime_, spans, tape, dropout};
  Tensor residual = embedded(ctx, ids);
  Tensor h;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (checkpoint && tape != nullptr) {
      if (h.defined()) add_(ctx, residual, h);
      h = checkpointed(ctx, blocks_[i], residual, states.block(i));
    } else {
      const Tensor u = add_norm(ctx, h, residual, blocks_[i].norm);
      h = blocks_[i].mixer->forward(ctx, u, states.block(i));
    }
  }
  return cross_entropy(ctx, add_norm(ctx, h, residual, final_norm_), head_, options);
}

}  // namespace krait
