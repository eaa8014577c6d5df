// What requests must fulfil before anything runs. Shared by the engine and the beam search.
#pragma once
#include "krait/infer/engine.h"

namespace krait {

// Throws kUsage (the request makes no sense) or kBadData (ids or state that are not this model's).
// `vocab`: ids below it may be sampled.
void check_request(const Model&, const Request&, int64_t vocab);
void check_request(const Model&, const BeamRequest&, int64_t vocab);

}  // namespace krait
