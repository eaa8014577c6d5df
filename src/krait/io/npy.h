// NumPy's .npy and .npz files.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "krait/core/tensor.h"
#include "krait/io/atomic_file.h"

namespace krait::io {

// Little-endian arrays of f32, f64, f16, i8, u8, bool, i16, i32, i64; rank at most Shape::kMaxRank, in C or Fortran
// order (row-major when read). Throws one kBadData that lists all that is wrong with the file.
Tensor read_npy(const std::filesystem::path&);
// All arrays of a .npz, stored or deflated, by name without ".npy".
std::map<std::string, Tensor> read_npz(const std::filesystem::path&);
// Format 1.0, atomically.
void write_npy(const std::filesystem::path&, const Tensor&, const Poll& poll = {});

}  // namespace krait::io
