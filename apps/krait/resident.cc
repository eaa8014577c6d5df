#include "resident.h"

#include <unistd.h>

#include <fstream>
#include <string>

namespace krait::cli {

Resident resident_now() {
  int64_t whole = 0, resident = 0, shared = 0;  // pages
  std::ifstream("/proc/self/statm") >> whole >> resident >> shared;
  const int64_t page = sysconf(_SC_PAGESIZE);
  return {(resident - shared) * page, shared * page};
}

// VmHWM, not ru_maxrss: that counts what the process was before it became this program.
int64_t peak_resident() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) << 10;  // in kB
  }
  return 0;
}

}  // namespace krait::cli
