// State of a batch's sequences out of and into the slots.
#pragma once
#include "krait/core/seq_spans.h"
#include "krait/core/tensor.h"

namespace krait {

// Of state [slots, …] those of the sequences of `spans`, one after the other: [n_seqs, …], a copy.
Tensor gather_states(const SeqSpans& spans, const Tensor& state);
// The way back: the slots of `spans` become `states` [n_seqs, …].
void scatter_states(const SeqSpans& spans, const Tensor& states, Tensor& state);

}  // namespace krait
