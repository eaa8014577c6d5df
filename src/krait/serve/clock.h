// Clock: where the server's code gets the time from, so that tests can simulate it.
#pragma once
#include <chrono>

namespace krait::serve {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual std::chrono::nanoseconds steady() const = 0;  // never goes back; since some start
  virtual std::chrono::system_clock::time_point wall() const = 0;
};

// Of the machine.
const Clock& real_clock();

}  // namespace krait::serve
