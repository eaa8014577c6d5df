// GGUF files, versions 2 and 3, little-endian (spec/gguf.md).
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "krait/core/tensor.h"
#include "krait/io/mapped_file.h"
#include "krait/io/safetensors.h"

namespace krait::io {

class Gguf {
 public:
  using Value = std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<bool>, std::vector<int64_t>,
                             std::vector<double>, std::vector<std::string>>;

  // Maps the file and reads the header; one kBadData lists every problem of keys and tensor table.
  static std::shared_ptr<const Gguf> open(const std::filesystem::path&);

  bool has(const std::string& key) const { return values_.contains(key); }
  // Each throws kBadData naming the key if it is absent (without _or) or of another type. A f32 value reads as the
  // shortest decimal that rounds to it (1e-5, not 9.99999975e-06).
  std::string str(const std::string& key) const;
  std::string str_or(const std::string& key, const std::string& otherwise) const;
  int64_t integer(const std::string& key) const;
  int64_t integer_or(const std::string& key, int64_t otherwise) const;
  double number_or(const std::string& key, double otherwise) const;  // integers too
  bool boolean(const std::string& key) const;
  bool boolean_or(const std::string& key, bool otherwise) const;
  std::vector<std::string> strings(const std::string& key) const;
  std::vector<float> floats(const std::string& key) const;
  std::vector<int32_t> integers32(const std::string& key) const;
  const std::map<std::string, Value>& values() const { return values_; }

  // Tensors in PyTorch's dimension order (reversed ne), viewing the mapping. A tensor of a type that DType does not
  // have, or of a block type whose blocks do not fill its rows, is a problem named at open().
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }

 private:
  std::map<std::string, Value> values_;
  std::map<std::string, Tensor> tensors_;
};

// Writes GGUF version 3, alignment 32, atomically. Keys and tensors in the order given. int64_t values are stored as
// u32 if they fit (llama.cpp's type for sizes), else i64 (i32 arrays for std::vector<int64_t> if they fit); double as
// f32 if it reads back the same (f64 else; arrays always f32). Throws kUsage on what the format cannot hold.
void write_gguf(const std::filesystem::path&, const std::vector<std::pair<std::string, Gguf::Value>>& values,
                const std::vector<NamedTensor>& tensors, const Poll& poll = {});
// The same without commit().
void write_gguf(AtomicFile&, const std::vector<std::pair<std::string, Gguf::Value>>& values,
                const std::vector<NamedTensor>& tensors);

}  // namespace krait::io
