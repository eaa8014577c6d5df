// safetensors: a JSON header and raw tensors (spec/gguf.md does not cover it; the format is the public one of
// Hugging Face: u64 header length, header, data; offsets relative to the data).
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "krait/core/tensor.h"
#include "krait/io/atomic_file.h"

namespace krait::io {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// Maps one file; tensors view the mapping. One kBadData lists every problem: truncated, overlapping or out-of-range
// data, holes, sizes that do not fit shapes, unknown dtypes, duplicate names, absurd header lengths. A tensor that the
// file does not align to its elements is copied.
std::map<std::string, Tensor> read_safetensors(const std::filesystem::path&);
// A sharded set: the folder's model.safetensors.index.json and the files it names (which must stay inside the folder).
std::map<std::string, Tensor> read_safetensors_index(const std::filesystem::path& index);

// Atomically. The data begins at a multiple of 64 and holds wide elements first, so that every tensor is aligned to its
// elements. Throws kUsage for names that occur twice or are reserved.
void write_safetensors(const std::filesystem::path&, const std::vector<NamedTensor>&,
                       const std::vector<std::pair<std::string, std::string>>& metadata, const Poll& poll = {});

}  // namespace krait::io
