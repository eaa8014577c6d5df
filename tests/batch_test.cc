// Sequences of different lengths in one batch of a whole model: there is no padding, so that nothing can read it.
#include <cstring>

#include "krait/infer/state_pool.h"
#include "tests/tiny_models.h"

namespace krait::test {
namespace {

constexpr int64_t kVocab = 29;

class Batch : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Model> model_ = tiny_model(GetParam());
};

bool same_bits(const float* a, const float* b, int64_t n) {
  return std::memcmp(a, b, static_cast<size_t>(n) * sizeof(float)) == 0;
}

// What a left- or right-padded batch with a mask means: each sequence as if it were alone, its state too, whether the
// long ones come before or after the short ones; and the same for a step that follows.
TEST_P(Batch, TrapA1_UnequalLengthsLeaveLogitsAndStatesAsIfAlone) {
  const int64_t V = model_->padded_vocab_size();
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{19, 5, 0, 1}, {1, 3, 19, 2}, {4, 4, 0, 4}}) {
    const auto n = static_cast<int64_t>(lengths.size());
    SlotStore together(model_->state_specs(), n), alone(model_->state_specs(), n);
    SeqSpans spans, steps;
    std::vector<int32_t> ids, next;
    std::vector<std::vector<int32_t>> of_sequence;
    for (int64_t s = 0; s < n; ++s) {
      const auto slot = static_cast<int32_t>(n - 1 - s);
      model_->reset_state(together, slot);
      model_->reset_state(alone, slot);
      of_sequence.push_back(random_ids(lengths[static_cast<size_t>(s)], kVocab, static_cast<uint64_t>(s) + 1));
      ids.insert(ids.end(), of_sequence.back().begin(), of_sequence.back().end());
      spans.add(lengths[static_cast<size_t>(s)], slot);
      steps.add(1, slot);
      next.push_back(static_cast<int32_t>(7 + s));
    }
    std::vector<int64_t> rows(ids.size());
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
    const Tensor batched = model_->forward(ids, spans, together, rows);
    const std::vector<int64_t> every_step{0, 1, 2, 3};
    const Tensor stepped = model_->forward(next, steps, together, every_step);
    for (int64_t s = 0; s < n; ++s) {
      SCOPED_TRACE("sequence " + std::to_string(s) + " of length " + std::to_string(lengths[static_cast<size_t>(s)]));
      const auto& mine = of_sequence[static_cast<size_t>(s)];
      const auto T = static_cast<int64_t>(mine.size());
      const auto slot = static_cast<int32_t>(n - 1 - s);
      if (T > 0) {
        const Tensor want = model_->forward(mine, SeqSpans::one(T, slot), alone, std::span(rows).first(mine.size()));
        EXPECT_TRUE(same_bits(batched.f32() + spans.offset[static_cast<size_t>(s)] * V, want.f32(), T * V));
      }
      const int64_t first = 0;
      const Tensor step = model_->forward(std::span(next).subspan(static_cast<size_t>(s), 1), SeqSpans::one(1, slot),
                                          alone, std::span(&first, 1));
      EXPECT_TRUE(same_bits(stepped.f32() + s * V, step.f32(), V));
      EXPECT_TRUE(snapshot(*model_, together, slot, {}) == snapshot(*model_, alone, slot, {}));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, Batch, testing::ValuesIn(tiny_names()), [](const auto& i) { return i.param; });

}  // namespace
}  // namespace krait::test
