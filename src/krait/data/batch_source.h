// BatchSource: what a trainer and an evaluator read. A sample (a window, a few packed documents, an example of a task)
// is a pure function of its place in the order, so that resuming needs no more than that place.
#pragma once
#include <cstdint>
#include <limits>
#include <type_traits>

#include "krait/data/batch.h"

namespace krait::data {

// Where in the order of training the next sample is. Checkpoints store it.
struct Position {
  int64_t epoch = 0;
  int64_t index = 0;  // of the sample within the epoch

  bool operator==(const Position&) const = default;
};
static_assert(std::is_trivially_copyable_v<Position> && sizeof(Position) == 16);

// The part of a step's samples that one pass takes: the step is divided over ranks, each rank's part over
// micro-batches, always in contiguous runs. So 1 x 32 samples and 4 x 8 are the same samples in the same order.
struct Share {
  int64_t rank = 0, world = 1;
  int64_t micro = 0, n_micro = 1;
};

inline constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();

class BatchSource {
 public:
  virtual ~BatchSource() = default;

  virtual int64_t vocab_size() const = 0;     // ids and targets lie in [0, vocab_size)
  virtual int64_t epoch_samples() const = 0;  // at least 1; kEndless where samples are generated
  // Of everything that the samples depend on (data, seed, options): a run is resumed only where it is the same.
  virtual uint64_t fingerprint() const = 0;
  // n >= 1 samples in order, from `first` on and over the ends of epochs.
  virtual Batch samples(Position first, int64_t n) const = 0;

  // The share of a step of `step_samples` that begins at `first`. Throws kUsage unless the samples divide evenly.
  Batch batch(Position first, int64_t step_samples, const Share&) const;
  // The position n samples on. Throws kUsage on a position outside the epoch or n < 0.
  Position advance(Position, int64_t n) const;
};

}  // namespace krait::data
