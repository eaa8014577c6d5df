#include "krait/data/batch_source.h"

#include <gtest/gtest.h>

#include "krait/core/error.h"

namespace krait::data {
namespace {

// Sample i of epoch e is the sequence of 1 + i % 3 ids e * 100 + i.
class Numbers : public BatchSource {
 public:
  int64_t vocab_size() const override { return 1000; }
  int64_t epoch_samples() const override { return 7; }
  uint64_t fingerprint() const override { return 1; }
  Batch samples(Position first, int64_t n) const override {
    Batch b;
    for (int64_t i = 0; i < n; ++i) {
      const Position p = advance(first, i);
      const auto length = static_cast<size_t>(1 + p.index % 3);
      const std::vector<int32_t> ids(length, static_cast<int32_t>(p.epoch * 100 + p.index));
      b.add(ids, ids, std::vector<float>(length, 1.0f));
    }
    return b;
  }
};

Batch joined(const std::vector<Batch>& parts) {
  Batch all;
  for (const Batch& part : parts) {
    for (int64_t s = 0; s < part.n_seqs(); ++s) {
      const auto from = static_cast<size_t>(part.spans.offset[static_cast<size_t>(s)]);
      const auto n = static_cast<size_t>(part.spans.length(s));
      all.add(std::span(part.ids).subspan(from, n), std::span(part.targets).subspan(from, n),
              std::span(part.weights).subspan(from, n));
    }
  }
  return all;
}

TEST(BatchSource, PositionsGoOverTheEndsOfEpochs) {
  const Numbers source;
  EXPECT_EQ(source.advance({0, 0}, 6), (Position{0, 6}));
  EXPECT_EQ(source.advance({0, 5}, 2), (Position{1, 0}));
  EXPECT_EQ(source.advance({2, 3}, 25), (Position{6, 0}));
  EXPECT_THROW(source.advance({0, 7}, 1), Error);
  EXPECT_THROW(source.advance({0, 0}, -1), Error);
}

// Trap B9: what a step learns from depends neither on accumulation nor on how many ranks share it.
TEST(BatchSource, TrapB9RanksAndMicroBatchesTakeTheSameSamplesInTheSameOrder) {
  const Numbers source;
  const Position at{1, 4};
  const Batch whole = source.batch(at, 32, {});
  for (const auto& [world, n_micro] : {std::pair{1, 4}, {4, 1}, {2, 8}, {1, 32}}) {
    std::vector<Batch> parts;
    for (int64_t rank = 0; rank < world; ++rank) {
      for (int64_t micro = 0; micro < n_micro; ++micro)
        parts.push_back(source.batch(at, 32, {rank, world, micro, n_micro}));
    }
    EXPECT_EQ(joined(parts), whole) << world << " ranks, " << n_micro << " micro-batches";
  }
}

TEST(BatchSource, SharesThatDoNotDivideAStepAreRefused) {
  const Numbers source;
  EXPECT_THROW(source.batch({}, 32, {.micro = 0, .n_micro = 3}), Error);
  EXPECT_THROW(source.batch({}, 0, {}), Error);
  EXPECT_THROW(source.batch({}, 32, {.rank = 2, .world = 2}), Error);
}

}  // namespace
}  // namespace krait::data
