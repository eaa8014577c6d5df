#include "krait/data/batch_source.h"

#include <fmt/format.h>

#include "krait/core/error.h"

namespace krait::data {

Batch BatchSource::batch(Position first, int64_t step_samples, const Share& s) const {
  if (s.world < 1 || s.rank < 0 || s.rank >= s.world || s.n_micro < 1 || s.micro < 0 || s.micro >= s.n_micro) {
    fail_usage(fmt::format("[batch] there is no rank {} of {} or no micro-batch {} of {}", s.rank, s.world, s.micro,
                           s.n_micro));
  }
  const int64_t parts = s.world * s.n_micro;
  if (step_samples < 1 || step_samples % parts != 0) {
    fail_usage(fmt::format("[batch] a step of {} samples does not divide into {} ranks x {} micro-batches",
                           step_samples, s.world, s.n_micro));
  }
  const int64_t n = step_samples / parts;
  return samples(advance(first, (s.rank * s.n_micro + s.micro) * n), n);
}

Position BatchSource::advance(Position p, int64_t n) const {
  const int64_t epoch = epoch_samples();
  if (n < 0 || p.epoch < 0 || p.index < 0 || p.index >= epoch || n > kEndless - p.index) {
    fail_usage(fmt::format("[batch] no position is {} samples after sample {} of epoch {}, an epoch has {}", n, p.index,
                           p.epoch, epoch));
  }
  const int64_t index = p.index + n;
  return {p.epoch + index / epoch, index % epoch};
}

}  // namespace krait::data
