#include "gguf_vocab.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>

#include "krait/core/error.h"
#include "krait/io/json.h"
#include "krait/text/side_files.h"
#include "krait/text/split_patterns.h"
#include "krait/text/spm_model.h"
#include "krait/text/tokenizer.h"

namespace krait::cli {
namespace {

namespace fs = std::filesystem;
using io::Json;

// tokenizer.ggml.token_type
constexpr int64_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;

[[noreturn]] void refuse(const std::string& what) {
  fail_data("[convert] the tokenizer has no counterpart in GGUF: " + what + " (--no-tokenizer leaves it out)");
}

struct Vocabulary {
  std::string model, pre;
  std::vector<std::string> tokens, merges;
  std::vector<double> scores;  // SentencePiece alone
  std::vector<int64_t> types;  // 0: no token has that id yet
  std::optional<int64_t> unknown;
  std::optional<bool> space_prefix;

  explicit Vocabulary(int64_t rows) : tokens(static_cast<size_t>(rows)), types(static_cast<size_t>(rows), 0) {}

  void set(int64_t id, const std::string& token, int64_t type) {
    if (id < 0 || id >= static_cast<int64_t>(tokens.size())) {
      fail_data(fmt::format("[convert] token '{}' has id {}, the model has {} rows", token, id, tokens.size()));
    }
    tokens[static_cast<size_t>(id)] = token;
    types[static_cast<size_t>(id)] = type;
  }
  void pad() {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (types[i] != 0) continue;
      tokens[i] = fmt::format("[PAD{}]", i);
      types[i] = kUnused;
    }
  }
};

// The stages of a pre-tokenizer, sequences laid flat.
std::vector<const Json*> stages(const Json* pre) {
  if (pre == nullptr || pre->is_null()) return {};
  const Json* list = pre->find("pretokenizers");
  if (list == nullptr) return {pre};
  std::vector<const Json*> all;
  for (size_t i = 0; i < list->size(); ++i) {
    const auto inner = stages(&list->at(i));
    all.insert(all.end(), inner.begin(), inner.end());
  }
  return all;
}

bool is_byte_level(const Json& tokenizer) {
  const auto all = stages(tokenizer.find("pre_tokenizer"));
  return std::ranges::any_of(all, [](const Json* s) { return s->string_or("type", "") == "ByteLevel"; });
}

// tokenizer.ggml.pre: the name of the splitting expression.
std::string split_name(const Json& tokenizer) {
  const auto all = stages(tokenizer.find("pre_tokenizer"));
  std::string regex;
  for (const Json* s : all) {
    const std::string type = s->string_or("type", "");
    if (type == "ByteLevel") {
      if (s->boolean_or("add_prefix_space", true)) refuse("it adds a space before every text");
      if (!s->boolean_or("use_regex", true)) continue;
      if (!regex.empty()) refuse("it splits twice");
      regex = text::patterns::kGpt2;
    } else if (type == "Split" && regex.empty() && s->string_or("behavior", "") == "Isolated" &&
               !s->boolean_or("invert", false) && s->at("pattern").find("Regex") != nullptr) {
      regex = s->at("pattern").at("Regex").as_string();
    } else {
      refuse("its pre-tokenizer " + type + " has no name there");
    }
  }
  const Json* normalizer = tokenizer.find("normalizer");
  const std::string kind = normalizer == nullptr || normalizer->is_null() ? "" : normalizer->string_or("type", "?");
  if (!kind.empty() && kind != "NFC") refuse("its normalizer is " + kind);
  const bool whole_pieces = tokenizer.at("model").boolean_or("ignore_merges", false);
  struct Known {
    std::string_view regex;
    const char* name;
    bool whole_pieces;
  };
  const std::array<Known, 4> known = {{{text::patterns::kGpt2, kind == "NFC" ? "mpt" : "gpt-2", false},
                                       {text::patterns::kLlama3, "llama-bpe", true},
                                       {text::patterns::kQwen2, "qwen2", false},
                                       {text::patterns::kTekken, "tekken", true}}};
  for (const Known& k : known) {
    if (regex == k.regex && whole_pieces == k.whole_pieces) return k.name;
  }
  refuse(fmt::format("its splitting expression (ignore_merges {}) has no name there: {}", whole_pieces, regex));
}

std::string merge_text(const Json& m) {
  if (m.is_string()) return m.as_string();
  const std::string &a = m.at(0).as_string(), &b = m.at(1).as_string();
  if ((a + b).find(' ') != std::string::npos) refuse("a merge has a space in it");
  return a + " " + b;
}

void add_added_tokens(const Json& tokenizer, Vocabulary& v) {
  const Json* added = tokenizer.find("added_tokens");
  for (size_t i = 0; added != nullptr && i < added->size(); ++i) {
    const Json& t = added->at(i);
    v.set(t.at("id").as_integer(), t.at("content").as_string(),
          t.boolean_or("special", false) ? kControl : kUserDefined);
  }
}

Vocabulary byte_level_bpe(const Json& tokenizer, int64_t rows) {
  Vocabulary v(rows);
  const Json& model = tokenizer.at("model");
  v.model = "gpt2";
  v.pre = split_name(tokenizer);
  for (const auto& [token, id] : model.at("vocab").items()) v.set(id.as_integer(), token, kNormal);
  const Json& merges = model.at("merges");
  for (size_t i = 0; i < merges.size(); ++i) v.merges.push_back(merge_text(merges.at(i)));
  if (const std::string unk = model.string_or("unk_token", ""); !unk.empty())
    v.unknown = model.at("vocab").at(unk).as_integer();
  add_added_tokens(tokenizer, v);
  return v;
}

Vocabulary sentencepiece(const fs::path& file, int64_t rows) {
  const text::SpmModel m = text::parse_spm_model(text::read_whole_file(file), file.string());
  if (m.unigram) refuse("it is a SentencePiece unigram model");
  Vocabulary v(rows);
  v.model = "llama";
  v.pre = "default";
  v.space_prefix = m.add_dummy_prefix;
  v.scores.resize(v.tokens.size(), 0.0);
  for (size_t i = 0; i < m.pieces.size(); ++i) {
    const text::SpmPiece& p = m.pieces[i];
    v.set(static_cast<int64_t>(i), p.text, static_cast<int64_t>(p.type));
    v.scores[i] = static_cast<double>(p.score);
    if (p.type == text::PieceType::kUnknown) v.unknown = static_cast<int64_t>(i);
  }
  return v;
}

// tokenizer.model, or tokenizer.model.v3 and the like; empty: none.
fs::path sentencepiece_file(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with("tokenizer.model")) found.push_back(entry.path());
  }
  return found.empty() ? fs::path() : *std::ranges::min_element(found);
}

// Beginning and end of a text as the tokenizer has them, the model's own word on its end first.
void add_special_ids(const text::Tokenizer& t, const ModelSpec& spec, GgufValues& out) {
  const auto rows = static_cast<int32_t>(spec.padded_vocab_size);
  std::vector<int32_t> eos = spec.eos_ids.empty() ? t.eos_ids() : spec.eos_ids;
  std::erase_if(eos, [&](int32_t id) { return id < 0 || id >= rows; });
  const std::optional<int32_t> bos = t.bos_id();
  if (eos.empty() && !bos) {
    fail_data(
        "[convert] the tokenizer names no token that ends a text (eos_token in tokenizer_config.json); GGUF readers "
        "would "
        "assume one (--no-tokenizer leaves it out)");
  }
  const int32_t end = eos.empty() ? *bos : eos.front(), begin = bos.value_or(end);
  const std::vector<int32_t> nothing = t.encode("");
  const auto added = [&](int32_t id) { return std::ranges::find(nothing, id) != nothing.end(); };
  out.emplace_back("tokenizer.ggml.bos_token_id", int64_t{begin});
  out.emplace_back("tokenizer.ggml.eos_token_id", int64_t{end});
  const bool add_bos = !nothing.empty() && nothing.front() == begin;
  out.emplace_back("tokenizer.ggml.add_bos_token", add_bos);
  out.emplace_back("tokenizer.ggml.add_eos_token", added(end) && (end != begin || !add_bos || nothing.size() > 1));
}

GgufValues gguf_vocabulary(const fs::path& folder, const ModelSpec& spec) {
  if (!text::has_tokenizer(folder)) return {};
  const fs::path json_file = folder / "tokenizer.json", spm_file = sentencepiece_file(folder);
  std::string source;
  Json json;
  if (fs::exists(json_file)) {
    source = text::read_whole_file(json_file);
    json = Json::parse(source, json_file.string());
  }
  std::optional<Vocabulary> v;
  if (!json.is_null() && is_byte_level(json) && json.at("model").string_or("type", "BPE") == "BPE") {
    v = byte_level_bpe(json, spec.padded_vocab_size);
  } else if (!spm_file.empty()) {
    v = sentencepiece(spm_file, spec.padded_vocab_size);
    if (!json.is_null()) add_added_tokens(json, *v);
  } else {
    refuse("it is neither a byte-level BPE nor a SentencePiece model");
  }
  v->pad();
  GgufValues out = {
      {"tokenizer.ggml.model", v->model}, {"tokenizer.ggml.pre", v->pre}, {"tokenizer.ggml.tokens", v->tokens}};
  if (!v->scores.empty()) out.emplace_back("tokenizer.ggml.scores", v->scores);
  out.emplace_back("tokenizer.ggml.token_type", v->types);
  if (!v->merges.empty()) out.emplace_back("tokenizer.ggml.merges", v->merges);
  if (v->unknown) out.emplace_back("tokenizer.ggml.unknown_token_id", *v->unknown);
  if (v->space_prefix) out.emplace_back("tokenizer.ggml.add_space_prefix", *v->space_prefix);
  const auto tokenizer = text::open_tokenizer(folder);
  add_special_ids(*tokenizer, spec, out);
  if (const std::string chat = tokenizer->chat_template(); !chat.empty())
    out.emplace_back("tokenizer.chat_template", chat);
  if (!source.empty()) out.emplace_back("tokenizer.huggingface.json", std::move(source));
  return out;
}

GgufValues carried_over(const io::Gguf& source) {
  constexpr std::array kOfTheFile = {"general.architecture", "general.type", "general.file_type", "general.alignment",
                                     "general.quantization_version"};
  GgufValues out;
  for (const auto& [key, value] : source.values()) {
    const bool general = key.starts_with("general.") && std::ranges::find(kOfTheFile, key) == kOfTheFile.end();
    if (general || key.starts_with("tokenizer.")) out.emplace_back(key, value);
  }
  return out;
}

}  // namespace

GgufValues accompanying_values(const io::Checkpoint& source, const ModelSpec& spec, bool tokenizer) {
  if (source.gguf() == nullptr) return tokenizer ? gguf_vocabulary(source.folder(), spec) : GgufValues{};
  GgufValues out = carried_over(*source.gguf());
  if (!tokenizer) std::erase_if(out, [](const auto& kv) { return kv.first.starts_with("tokenizer."); });
  return out;
}

}  // namespace krait::cli
