// What memory this process holds right now.
#pragma once
#include <cstdint>

namespace krait::cli {

struct Resident {
  int64_t own = 0;   // bytes of memory of its own
  int64_t file = 0;  // bytes of mapped files: the program, its libraries, weights

  int64_t total() const { return own + file; }
  friend Resident operator-(Resident a, Resident b) { return {a.own - b.own, a.file - b.file}; }
};

// From /proc/self/statm; zeros where there is none.
Resident resident_now();
// Bytes at their peak since the program began; 0 where that is not known.
int64_t peak_resident();

}  // namespace krait::cli
