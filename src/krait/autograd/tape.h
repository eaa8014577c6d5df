// Tape: the backward steps of what was computed, in order. Ops record on it when their context has one.
#pragma once
#include <functional>
#include <vector>

#include "krait/autograd/gradients.h"

namespace krait {

class Tape {
 public:
  explicit Tape(Gradients& gradients) : gradients_(gradients) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  Gradients& gradients() const { return gradients_; }

  // `step` reads the gradients of an op's outputs and adds to those of its inputs. It keeps the tensors that it needs.
  void record(std::function<void()> step) { steps_.push_back(std::move(step)); }

  // Runs the steps, last first, and forgets them. A step's tensors are freed when it has run, with their gradients if
  // nobody else holds them.
  void backward();

 private:
  Gradients& gradients_;
  std::vector<std::function<void()>> steps_;
};

}  // namespace krait
