#include <algorithm>
#include <fstream>

#include "krait/core/error.h"
#include "krait/text/factories.h"
#include "krait/text/tokenizer.h"

namespace krait::text {
namespace {

namespace fs = std::filesystem;

enum class Kind : uint8_t { kUnknown, kJson, kSentencePiece, kRwkv };

Kind kind_by_name(const std::string& name) {
  if (name.ends_with(".json")) return Kind::kJson;
  if (name.ends_with(".model") || name.find(".model.v") != std::string::npos) return Kind::kSentencePiece;
  if (name.starts_with("rwkv_vocab") && name.ends_with(".txt")) return Kind::kRwkv;
  return Kind::kUnknown;
}

Kind kind_by_content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw Error(ErrorCode::kFailed, "[tokenizer] cannot open " + file.string());
  char first = 0;
  in.get(first);
  if (first == '{') return Kind::kJson;
  if (first == '\n') return Kind::kSentencePiece;  // protobuf: field 1, length-delimited
  if (first >= '0' && first <= '9') return Kind::kRwkv;
  return Kind::kUnknown;
}

// The file of a folder that defines its tokenizer; empty: none. tokenizer.json wins: it is what the model was run with.
fs::path choose_file(const fs::path& folder) {
  std::vector<fs::path> models, rwkv;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name == "tokenizer.json") return entry.path();
    if (name.starts_with("tokenizer.model")) models.push_back(entry.path());
    if (kind_by_name(name) == Kind::kRwkv) rwkv.push_back(entry.path());
  }
  std::ranges::sort(models);  // "tokenizer.model" first
  std::ranges::sort(rwkv);
  return !models.empty() ? models.front() : !rwkv.empty() ? rwkv.front() : fs::path();
}

// What the other keys say beside the tokenizer.json: where a text begins and ends, and how turns are written.
std::unique_ptr<Tokenizer> from_huggingface_json(const GgufVocab& v) {
  const std::string what = "tokenizer.huggingface.json of the GGUF file";
  SideFiles side;
  side.chat_template = v.chat_template;
  if (v.bos) {
    if (*v.bos < 0 || static_cast<size_t>(*v.bos) >= v.tokens.size()) {
      fail_data("[tokenizer] bos_token_id " + std::to_string(*v.bos) + " in a vocabulary of " +
                std::to_string(v.tokens.size()));
    }
    side.bos = v.tokens[static_cast<size_t>(*v.bos)];
  }
  for (const auto& id : {v.eos, v.eot}) {
    if (id) side.eos_ids.push_back(*id);
  }
  return make_json_tokenizer(v.huggingface_json, what, side);
}

}  // namespace

bool has_tokenizer(const fs::path& folder) { return fs::is_directory(folder) && !choose_file(folder).empty(); }

std::unique_ptr<Tokenizer> open_tokenizer(const fs::path& path) {
  if (!fs::exists(path)) throw Error(ErrorCode::kFailed, "[tokenizer] " + path.string() + " does not exist");
  const fs::path file = fs::is_directory(path) ? choose_file(path) : path;
  if (file.empty()) {
    fail_data("[tokenizer] " + path.string() + " has no tokenizer.json, tokenizer.model or rwkv_vocab*.txt");
  }
  const SideFiles side = read_side_files(file.parent_path());
  const Kind named = kind_by_name(file.filename().string());
  switch (named == Kind::kUnknown ? kind_by_content(file) : named) {
    case Kind::kJson:
      return make_json_tokenizer(file, side);
    case Kind::kSentencePiece:
      return make_sentencepiece_tokenizer(file, side);
    case Kind::kRwkv:
      return make_rwkv_tokenizer(file, side);
    case Kind::kUnknown:
      break;
  }
  fail_data("[tokenizer] " + file.string() +
            " is neither a tokenizer.json, a SentencePiece model nor a RWKV vocabulary");
}

std::unique_ptr<Tokenizer> make_gguf_tokenizer(const GgufVocab& vocab) {
  if (!vocab.huggingface_json.empty()) return from_huggingface_json(vocab);
  if (vocab.model == "gpt2") return make_gguf_bpe(vocab);
  if (vocab.model == "llama") return make_gguf_spm(vocab);
  if (vocab.model == "t5") return make_gguf_unigram(vocab);
  if (vocab.model == "rwkv") return make_gguf_rwkv(vocab);
  fail_data("[tokenizer] GGUF vocabulary model '" + vocab.model + "' is not supported (gpt2, llama, t5, rwkv are)");
}

}  // namespace krait::text
