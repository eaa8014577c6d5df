// The interactive form of `krait run`.
#pragma once
#include <memory>

#include "conversation.h"
#include "run_options.h"

namespace krait::cli {

// Reads messages and commands until end of file or /exit; returns the exit code. `start`: goes on from there; may be
// null.
int chat(const RunArgs& args, const Session& session, std::shared_ptr<const State> start);

}  // namespace krait::cli
