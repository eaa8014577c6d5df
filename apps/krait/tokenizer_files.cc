#include "tokenizer_files.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "krait/core/error.h"
#include "krait/io/checkpoint.h"
#include "text_file.h"

namespace krait::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::array kBeside = {"tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
                                "chat_template.jinja", "added_tokens.json"};
constexpr std::array kVocabularies = {"tokenizer.json", "vocab.json", "merges.txt"};

bool is_vocabulary(const std::string& name) {
  return std::ranges::find(kVocabularies, name) != kVocabularies.end() || name.starts_with("tokenizer.model") ||
         (name.starts_with("rwkv_vocab") && name.ends_with(".txt"));
}

std::string json_in_gguf(const std::string& path) {
  const auto checkpoint = io::Checkpoint::open(path);
  constexpr const char* kKey = "tokenizer.huggingface.json";
  if (!checkpoint->gguf()->has(kKey)) fail_data("[tokenizer] " + path + " has no tokenizer.json in it (" + kKey + ")");
  return checkpoint->gguf()->str(kKey);
}

}  // namespace

bool travels_with_model(const std::string& name) {
  return is_vocabulary(name) || std::ranges::find(kBeside, name) != kBeside.end();
}

std::vector<TokenizerFile> read_tokenizer_files(const std::string& path) {
  if (path.ends_with(".gguf")) return {{"tokenizer.json", json_in_gguf(path)}};
  const fs::path p = path;
  const bool folder = fs::is_directory(p);
  std::vector<TokenizerFile> files;
  if (!folder) files.push_back({p.extension() == ".json" ? "tokenizer.json" : p.filename().string(), read_text(path)});
  const fs::path place = folder ? p : p.has_parent_path() ? p.parent_path() : fs::path(".");
  std::error_code ec;
  for (fs::directory_iterator it(place, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    const bool wanted = travels_with_model(name) && (folder || !is_vocabulary(name));
    if (wanted) files.push_back({name, read_text(it->path().string())});
  }
  if (ec) throw Error(ErrorCode::kFailed, "[tokenizer] cannot list " + place.string() + ": " + ec.message());
  return files;
}

}  // namespace krait::cli
