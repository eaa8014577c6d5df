// Sharded checkpoints: an index (JSON, "weight_map": tensor -> file) and the files it names, of one format.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "krait/core/tensor.h"

namespace krait::io {

using ShardReader = std::function<std::map<std::string, Tensor>(const std::filesystem::path&)>;

// Every tensor of the index. One kBadData lists all that is wrong with the index and its shards: names that lead out of
// the folder, shards that are absent or refused, tensors that are not where the index has them or not in it. `op`
// begins the message.
std::map<std::string, Tensor> read_sharded(const std::filesystem::path& index, const std::string& op,
                                           const ShardReader&);

}  // namespace krait::io
