// Adapters on disk, as the peft package writes and reads them: adapter_config.json and adapter_model.safetensors;
// states that a sequence begins with, which peft does not know, lie beside them in initial_states.safetensors.
#pragma once
#include <filesystem>

#include "krait/io/atomic_file.h"
#include "krait/models/adapter.h"

namespace krait {

inline constexpr const char* kAdapterConfig = "adapter_config.json";
inline constexpr const char* kAdapterWeights = "adapter_model.safetensors";
inline constexpr const char* kInitialStates = "initial_states.safetensors";

// The adapter in the folder, checked against the model. Throws kFailed if there is none, kBadData listing what the
// model has no place for, and for variants of LoRA that change more than W + scale · B·A says (DoRA, trained biases,
// whole modules).
Adapter read_adapter(const std::filesystem::path& folder, const ModelSpec&);

// Writes the files, each atomically, into the folder, which is made if need be; those that are there are replaced.
// Convolutions are written as a pair of convolutions [r, 1, W] and [C, r, 1]: peft has no LoRA of depthwise ones.
void write_adapter(const std::filesystem::path& folder, const Adapter&, const io::Poll& poll = {});

}  // namespace krait
