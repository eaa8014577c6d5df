// PassBudget: how many prompt tokens a forward pass may take while others are writing, from how long passes took.
#pragma once
#include <array>
#include <cstdint>
#include <map>

#include "krait/infer/engine.h"

namespace krait::serve {

class PassBudget {
 public:
  // `max_stall`: a pass with prompt tokens takes less than so many times one without, as far as can be told; `most`:
  // tokens of a pass while nobody writes.
  PassBudget(double max_stall, int64_t most) : max_stall_(max_stall), most_(most) {}

  // 0: this pass shall show how long the writers take alone.
  int64_t next(const EngineLoad& load) const;
  void passed(const PassTokens& tokens, double seconds);

 private:
  // Of the last values.
  class Median {
   public:
    void add(double value);
    double value() const;
    bool empty() const { return n_ == 0; }

   private:
    std::array<double, 31> ring_{};
    size_t n_ = 0, at_ = 0;
  };
  static int size_class(int64_t writers);

  double max_stall_;
  int64_t most_;
  std::map<int, Median> writing_;  // seconds of a pass of writers alone, by about how many there are
  Median mixed_, reading_;         // seconds a prompt token, beside writers and alone
  int64_t since_alone_ = 0;        // passes
};

}  // namespace krait::serve
