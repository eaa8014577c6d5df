// torch.save files: a zip archive that holds a pickle and raw storages. The pickle is read by a bounded interpreter
// that knows the few opcodes and globals of a state dict and executes nothing.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "krait/core/tensor.h"

namespace krait::io {

// Tensors by name, viewing the mapped file (storages are uncompressed). A state dict may stand directly, or under
// "state_dict" / "model". Throws kBadData: not a zip of torch, hostile or unknown opcodes and globals (named), storages
// outside the archive, compressed storages, strides or sizes that leave the storage, big-endian files.
std::map<std::string, Tensor> read_torch(const std::filesystem::path&);
// A sharded set: pytorch_model.bin.index.json and the files it names (which must stay inside the folder).
std::map<std::string, Tensor> read_torch_index(const std::filesystem::path& index);

}  // namespace krait::io
