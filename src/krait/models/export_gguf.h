// Writing GGUF files: as llama.cpp reads them where it knows the model (spec/gguf.md), else under an architecture of
// our own (docs/formats.md).
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "krait/io/gguf.h"
#include "krait/models/param_store.h"

namespace krait {

using GgufValues = std::vector<std::pair<std::string, io::Gguf::Value>>;

// Keys and values of the model, general.architecture first. Throws kUsage saying what a GGUF file cannot express.
GgufValues gguf_values(const ModelSpec&);

// Writes the model: matrices and tables in the types they have in `params`, everything else as F32. `tokenizer`:
// further keys (tokenizer.*, general.name, …), none of which may be one of the model's. Atomic; an existing file is
// replaced. `file_type`: general.file_type; default: by the type of most weights.
void save_gguf(const ModelSpec&, const ParamStore& params, const std::filesystem::path& out,
               const GgufValues& tokenizer, const io::Poll& poll = {}, std::optional<int64_t> file_type = {});

}  // namespace krait
