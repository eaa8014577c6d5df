// Checkpoint: named tensors and a configuration, from any supported kind of file or folder, by memory map.
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "krait/core/tensor.h"
#include "krait/io/gguf.h"
#include "krait/io/json.h"

namespace krait::io {

class Checkpoint {
 public:
  // A folder with config.json and model.safetensors or pytorch_model.bin, or the index.json of their shards (also a
  // single
  // *.safetensors, *.bin or *.pt); one of those files (config.json beside it); or a *.gguf file. Throws kFailed if the
  // path does not exist, kBadData with the reason if it is no checkpoint.
  static std::shared_ptr<const Checkpoint> open(const std::filesystem::path&);

  // A configuration without tensors, for a model whose weights are yet to come.
  static std::shared_ptr<const Checkpoint> of_config(Json config);

  const std::filesystem::path& path() const { return path_; }      // as given
  const std::filesystem::path& folder() const { return folder_; }  // where config.json or the GGUF file stands
  const Json& config() const { return config_; }                   // null for GGUF
  const Gguf* gguf() const { return gguf_.get(); }                 // null for anything else

  bool has(const std::string& name) const { return tensors_.contains(name); }
  const Tensor& tensor(const std::string& name) const;  // throws kBadData if absent
  const Shape& shape(const std::string& name) const { return tensor(name).shape(); }
  std::vector<std::string> names() const;  // sorted

 private:
  std::filesystem::path path_, folder_;
  Json config_;
  std::shared_ptr<const Gguf> gguf_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace krait::io
