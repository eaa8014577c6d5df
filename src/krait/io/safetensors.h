// safetensors: a JSON header and raw tensors (spec/gguf.md does not cover it; the format is the public one of
// Hugging Face: u64 header length, header, data; offsets relative to the data).
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "krait/core/tensor.h"

namespace krait::io {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// Maps one file; tensors view the mapping. One kBadData lists every problem: truncated, overlapping or out-of-range
// data, sizes that do not fit shapes, unknown dtypes, duplicate names, absurd header lengths.
std::map<std::string, Tensor> read_safetensors(const std::filesystem::path&);
// A sharded set: the folder's model.safetensors.index.json and the files it names (which must stay inside the folder).
std::map<std::string, Tensor> read_safetensors_index(const std::filesystem::path& index);

// Atomically; the data of each tensor is aligned to 64 bytes by padding the header.
void write_safetensors(const std::filesystem::path&, const std::vector<NamedTensor>&,
                       const std::vector<std::pair<std::string, std::string>>& metadata);

}  // namespace krait::io
