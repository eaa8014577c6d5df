// GGUF "gpt2" vocabularies: byte-level BPE that names its splitting expression (spec/gguf.md §6).
#include <algorithm>
#include <array>

#include "krait/core/error.h"
#include "krait/text/bpe.h"
#include "krait/text/byte_chars.h"
#include "krait/text/pipeline.h"
#include "krait/text/unicode.h"

namespace krait::text {
namespace {

constexpr int32_t kControl = 3, kUserDefined = 4, kUnused = 5;
constexpr int32_t kDefaultEnd = 11;  // bos and eos of a file that names none

struct Kind {
  const char* name;
  std::string_view pattern;
  bool ignore_merges, add_bos;
};
constexpr Kind kKinds[] = {
    {"gpt-2", patterns::kGpt2, false, false},     {"mpt", patterns::kGpt2, false, false},
    {"olmo", patterns::kGpt2, false, false},      {"jais", patterns::kGpt2, false, false},
    {"llama-bpe", patterns::kLlama3, true, true}, {"llama3", patterns::kLlama3, true, true},
    {"llama-v3", patterns::kLlama3, true, true},  {"falcon-h1", patterns::kLlama3, true, true},
    {"falcon3", patterns::kLlama3, true, true},   {"lfm2", patterns::kLlama3, true, true},
    {"pixtral", patterns::kLlama3, true, true},   {"qwen2", patterns::kQwen2, false, false},
    {"tekken", patterns::kTekken, true, true},
};

// The split of "falcon", and of files that name none.
void add_default_split(bool falcon, std::vector<std::unique_ptr<PreTokenizer>>& out) {
  out.push_back(
      split_by_regex(falcon ? R"([\p{P}\$\+<=>\^~\|`]+)" : R"([\p{P}\$\+<=>\^~\|]+)", SplitBehavior::kIsolated, false));
  out.push_back(split_by_pieces(gpt2_piece_end));
  if (!falcon) out.push_back(split_by_character(is_number, SplitBehavior::kContiguous));
  out.push_back(split_by_regex("[0-9][0-9][0-9]", SplitBehavior::kIsolated, false));
}

std::unique_ptr<PieceModel> read_model(const GgufVocab& v, bool ignore_merges) {
  if (v.tokens.size() >= static_cast<size_t>(Vocab::kMaxIds)) fail_data("[gguf vocabulary] too many tokens");
  Vocab vocab;
  for (size_t i = 0; i < v.tokens.size(); ++i) vocab.add(v.tokens[i], static_cast<int32_t>(i));
  Merges merges;
  for (const std::string& m : v.merges) {
    const size_t space = m.find(' ', 1);
    if (space == std::string::npos) fail_data("[gguf vocabulary] merge '" + m + "' is not two tokens");
    merges.emplace_back(std::string_view(m).substr(0, space), std::string_view(m).substr(space + 1));
  }
  return make_bpe(std::move(vocab), merges, {.unk_token = {}, .ignore_merges = ignore_merges});
}

int32_t checked_id(std::optional<int32_t> id, int32_t otherwise, const GgufVocab& v, const char* what) {
  const int32_t n = id.value_or(otherwise);
  if (n < 0 || static_cast<size_t>(n) >= v.tokens.size()) {
    fail_data(std::string("[gguf vocabulary] ") + what + " is " + std::to_string(n) + ", there are " +
              std::to_string(v.tokens.size()) + " tokens");
  }
  return n;
}

void find_ends(const GgufVocab& v, Pipeline& p) {
  p.bos = checked_id(v.bos, kDefaultEnd, v, "bos_token_id");
  p.eos.push_back(checked_id(v.eos, kDefaultEnd, v, "eos_token_id"));
  const auto add = [&](int32_t id) {
    if (std::ranges::find(p.eos, id) == p.eos.end()) p.eos.push_back(id);
  };
  if (v.eot) add(checked_id(v.eot, 0, v, "eot_token_id"));
  for (const AddedToken& t : p.added) {
    if (t.special && std::ranges::find(turn_enders(), t.content) != turn_enders().end()) add(t.id);
  }
}

}  // namespace

std::unique_ptr<Tokenizer> make_gguf_bpe(const GgufVocab& v) {
  if (!v.types.empty() && v.types.size() != v.tokens.size()) {
    fail_data("[gguf vocabulary] " + std::to_string(v.tokens.size()) + " tokens but " + std::to_string(v.types.size()) +
              " token types");
  }
  const bool unnamed = v.pre.empty() || v.pre == "default";
  const Kind* kind = std::ranges::find_if(kKinds, [&](const Kind& k) { return v.pre == k.name; });
  if (kind == std::end(kKinds)) kind = nullptr;
  if (kind == nullptr && !unnamed && v.pre != "falcon") {
    fail_data("[gguf vocabulary] the split 'tokenizer.ggml.pre' = '" + v.pre + "' is not supported");
  }
  Pipeline p;
  p.name = "byte-level BPE (GGUF, " + (unnamed ? "default" : v.pre) + ")";
  p.chat_template = v.chat_template;
  p.model = read_model(v, kind != nullptr && kind->ignore_merges);
  std::vector<bool> literal(v.tokens.size());
  for (size_t i = 0; i < v.types.size(); ++i) {
    const int32_t type = v.types[i];
    literal[i] = type == kControl || type == kUserDefined || type == kUnused;
    if (type == kControl || type == kUserDefined) {
      p.added.push_back({.content = v.tokens[i], .id = static_cast<int32_t>(i), .special = type == kControl});
    }
  }
  if (kind != nullptr) {
    p.pre_tokenizers.push_back(split_by_pieces(known_pattern(kind->pattern)));
  } else {
    add_default_split(!unnamed, p.pre_tokenizers);
  }
  p.pre_tokenizers.push_back(byte_level(false, nullptr));
  p.decoder = [literal = std::move(literal)](int32_t id, std::string_view token, bool) {
    return literal[static_cast<size_t>(id)] ? std::string(token) : bytes_of_token(token);
  };
  find_ends(v, p);
  if (v.add_bos.value_or(kind != nullptr && kind->add_bos)) p.before = {*p.bos};
  if (v.add_eos.value_or(false)) p.after = {p.eos.front()};
  return make_pipeline_tokenizer(std::move(p));
}

}  // namespace krait::text
