#include "krait/serve/service/pass_budget.h"

#include <algorithm>
#include <bit>

namespace krait::serve {
namespace {

constexpr int64_t kFirstTokens = 16;      // beside writers, when nothing was measured yet
constexpr int64_t kAloneEvery = 64;       // passes after which the writers are timed again
constexpr double kMargin = 0.9;           // of the bound: passes are not equally long
constexpr double kSmallPassesCost = 1.5;  // a prompt token in small passes against one in full passes, at first

}  // namespace

void PassBudget::Median::add(double value) {
  ring_[at_] = value;
  at_ = (at_ + 1) % ring_.size();
  n_ = std::min(n_ + 1, ring_.size());
}

double PassBudget::Median::value() const {
  auto sorted = ring_;
  const auto middle = sorted.begin() + static_cast<int64_t>(n_ / 2);
  std::nth_element(sorted.begin(), middle, sorted.begin() + static_cast<int64_t>(n_));
  return *middle;
}

int PassBudget::size_class(int64_t writers) { return static_cast<int>(std::bit_width(static_cast<uint64_t>(writers))); }

int64_t PassBudget::next(const EngineLoad& load) const {
  if (load.writing == 0) return most_;
  const auto alone = writing_.find(size_class(load.writing));
  if (alone == writing_.end() || since_alone_ >= kAloneEvery) return 0;
  const double a_token = !mixed_.empty() ? mixed_.value() : !reading_.empty() ? reading_.value() * kSmallPassesCost : 0;
  const double seconds = alone->second.value() * (max_stall_ * kMargin - 1);
  if (a_token <= 0) return std::min(kFirstTokens, most_);
  const double tokens = seconds / a_token;
  return tokens >= static_cast<double>(most_) ? most_ : std::max<int64_t>(1, static_cast<int64_t>(tokens));
}

void PassBudget::passed(const PassTokens& tokens, double seconds) {
  if (tokens.generated == 0) {
    if (tokens.prompt > 0) reading_.add(seconds / static_cast<double>(tokens.prompt));
    return;
  }
  Median& alone = writing_[size_class(tokens.generated)];
  if (tokens.prompt == 0) {
    alone.add(seconds);
    since_alone_ = 0;
    return;
  }
  ++since_alone_;
  if (!alone.empty()) mixed_.add(std::max(seconds - alone.value(), 0.0) / static_cast<double>(tokens.prompt));
}

}  // namespace krait::serve
