#include "krait/autograd/tape.h"

namespace krait {

void Tape::backward() {
  while (!steps_.empty()) {
    steps_.back()();
    steps_.pop_back();
    gradients_.drop_unreachable();
  }
}

}  // namespace krait
