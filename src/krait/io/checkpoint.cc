#include "krait/io/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "krait/core/error.h"
#include "krait/io/mapped_file.h"
#include "krait/io/safetensors.h"
#include "krait/io/torch_file.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndexSuffix = ".safetensors.index.json", kTorchIndexSuffix = ".bin.index.json";

// Side files of training runs that end like weights.
constexpr std::array<std::string_view, 5> kNotWeights{"training_args.bin", "optimizer.bin", "optimizer.pt",
                                                      "scheduler.bin", "scheduler.pt"};

bool is_there(const fs::path& path) {
  std::error_code ec;
  return fs::exists(path, ec);
}

enum class Kind { kNone, kGguf, kSafetensors, kIndex, kTorch, kTorchIndex };

Kind kind_of(const fs::path& file) {
  const std::string name = file.filename().string();
  if (name.ends_with(".gguf")) return Kind::kGguf;
  if (name.ends_with(".safetensors")) return Kind::kSafetensors;
  if (name.ends_with(kIndexSuffix)) return Kind::kIndex;
  if (name.ends_with(kTorchIndexSuffix)) return Kind::kTorchIndex;
  const bool torch = name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth");
  return torch && std::ranges::find(kNotWeights, name) == kNotWeights.end() ? Kind::kTorch : Kind::kNone;
}

std::map<std::string, Tensor> read_weights(const fs::path& file) {
  switch (kind_of(file)) {
    case Kind::kSafetensors:
      return read_safetensors(file);
    case Kind::kIndex:
      return read_safetensors_index(file);
    case Kind::kTorch:
      return read_torch(file);
    case Kind::kTorchIndex:
      return read_torch_index(file);
    case Kind::kGguf:
    case Kind::kNone:
      break;
  }
  fail_data(fmt::format("[checkpoint] {} is no weights file: expected .safetensors, {}, .bin, .pt, {} or .gguf",
                        file.string(), kIndexSuffix, kTorchIndexSuffix));
}

std::vector<fs::path> files_in(const fs::path& folder, Kind kind) {
  std::vector<fs::path> found;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    if (kind_of(it->path()) == kind && it->is_regular_file(ec)) found.push_back(it->path());
  }
  if (ec)
    throw Error(ErrorCode::kFailed, fmt::format("[checkpoint] cannot list {}: {}", folder.string(), ec.message()));
  std::ranges::sort(found);
  return found;
}

// The only file of its kind; empty if there is none.
fs::path single(const fs::path& folder, Kind kind, const char* kind_name) {
  const std::vector<fs::path> found = files_in(folder, kind);
  if (found.empty()) return {};
  if (found.size() == 1) return found.front();
  std::string names;
  for (const fs::path& f : found) names += (names.empty() ? "" : ", ") + f.filename().string();
  fail_data(fmt::format("[checkpoint] {} has {} {} files ({}): name the one to open", folder.string(), found.size(),
                        kind_name, names));
}

// The weights of a folder: by their usual names first, safetensors before torch before GGUF.
fs::path find_weights(const fs::path& folder) {
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    if (is_there(folder / name)) return folder / name;
  }
  if (fs::path f = single(folder, Kind::kSafetensors, ".safetensors"); !f.empty()) return f;
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (is_there(folder / name)) return folder / name;
  }
  if (fs::path f = single(folder, Kind::kTorch, ".bin or .pt"); !f.empty()) return f;
  if (fs::path f = single(folder, Kind::kGguf, ".gguf"); !f.empty()) return f;
  fail_data(fmt::format(
      "[checkpoint] {} has no weights: looked for model.safetensors, model.safetensors.index.json, a single "
      "*.safetensors, pytorch_model.bin, pytorch_model.bin.index.json, a single *.bin or *.pt, a single *.gguf",
      folder.string()));
}

Json read_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  if (!is_there(path)) fail_data(fmt::format("[checkpoint] {} is missing", path.string()));
  Json config = Json::parse(MappedFile::open(path)->text(), path.string());
  if (!config.is_object()) fail_data(fmt::format("[checkpoint] {} is not a JSON object", path.string()));
  return config;
}

// The weights file that `path` means.
fs::path resolve(const fs::path& path) {
  std::error_code ec;
  if (!fs::exists(path, ec)) {
    throw Error(ErrorCode::kFailed,
                fmt::format("[checkpoint] {}: {}", path.string(), ec ? ec.message() : "no such file or folder"));
  }
  if (!fs::is_directory(path, ec)) return path;
  if (is_there(path / "config.json")) return find_weights(path);
  const fs::path gguf = single(path, Kind::kGguf, ".gguf");
  if (gguf.empty()) {
    fail_data(fmt::format("[checkpoint] {} has neither config.json nor a .gguf file", path.string()));
  }
  return gguf;
}

}  // namespace

std::shared_ptr<const Checkpoint> Checkpoint::of_config(Json config) {
  auto c = std::make_shared<Checkpoint>();
  c->config_ = std::move(config);
  return c;
}

std::shared_ptr<const Checkpoint> Checkpoint::open(const fs::path& path) {
  auto c = std::make_shared<Checkpoint>();
  const fs::path weights = resolve(path);
  c->path_ = path;
  c->folder_ = weights.has_parent_path() ? weights.parent_path() : fs::path(".");
  if (kind_of(weights) == Kind::kGguf) {
    c->gguf_ = Gguf::open(weights);
    c->tensors_ = c->gguf_->tensors();
  } else {
    c->config_ = read_config(c->folder_);
    c->tensors_ = read_weights(weights);
  }
  return c;
}

const Tensor& Checkpoint::tensor(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end())
    fail_data(fmt::format("[checkpoint] {}: there is no tensor {}", path_.string(), quote_name(name)));
  return it->second;
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  names.reserve(tensors_.size());
  for (const auto& item : tensors_) names.push_back(item.first);
  return names;
}

}  // namespace krait::io
