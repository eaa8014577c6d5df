// The log of `krait serve`.
#pragma once
#include <string>

namespace spdlog {
class logger;
}

namespace krait::cli {

// Lets the log (whose sinks nobody else sets) go to `file` (empty: standard error), as "text" or "json" lines. Throws
// kFailed if it cannot be opened; the log then goes where it went before.
void open_log(spdlog::logger& log, const std::string& file, const std::string& format);

}  // namespace krait::cli
