// What `krait run` says about a finished run: the JSON object of --json, the line of --verbose.
#pragma once
#include <string>

#include "generate.h"

namespace krait::cli {

// {text, ids, finish_reason, …, timings}; with several choices `choices` holds the first part of it for each.
std::string report_json(const Job& job, const Outcome& outcome, double load_seconds);
// "read 5 tokens in 3.1 ms, wrote 200 in 1.52 s (131.6 tokens/s)"
std::string report_line(int64_t read, double read_seconds, int64_t written, double write_seconds);

}  // namespace krait::cli
