// GGUF vocabularies of models "llama" (SentencePiece's BPE) and "t5" (its unigram).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "krait/core/error.h"
#include "krait/text/factories.h"
#include "krait/text/spm_tokenizer.h"

namespace krait::text {
namespace {

void check_id(const GgufVocab& v, std::optional<int32_t> id, const char* name) {
  if (id && (*id < 0 || static_cast<size_t>(*id) >= v.tokens.size())) {
    fail_data(fmt::format("[gguf vocabulary] {}_token_id {} in a vocabulary of {}", name, *id, v.tokens.size()));
  }
}

void read_pieces(const GgufVocab& v, SpmModel& m) {
  const size_t n = v.tokens.size();
  if (v.scores.size() != n || (!v.types.empty() && v.types.size() != n)) {
    fail_data(fmt::format("[gguf vocabulary] {} tokens, {} scores, {} types", n, v.scores.size(), v.types.size()));
  }
  int64_t bytes = 0;
  for (size_t i = 0; i < n; ++i) {
    const int32_t type = v.types.empty() ? 0 : v.types[i];
    if (type < 0 || type > 6) fail_data(fmt::format("[gguf vocabulary] token {} has type {}", i, type));
    if (!std::isfinite(v.scores[i])) fail_data(fmt::format("[gguf vocabulary] token {} has score {}", i, v.scores[i]));
    SpmPiece p{v.tokens[i], v.scores[i], type == 0 ? PieceType::kNormal : static_cast<PieceType>(type)};
    if (p.text.empty()) {  // a hole in the ids: never produced, decodes to nothing
      p.type = PieceType::kControl;
      p.text = fmt::format("[EMPTY{}]", i);
    }
    bytes += p.type == PieceType::kByte;
    m.pieces.push_back(std::move(p));
  }
  m.byte_fallback = bytes == 256;
  const auto unk = static_cast<size_t>(v.unk.value_or(0));
  if (std::ranges::count(m.pieces, PieceType::kUnknown, &SpmPiece::type) == 0 && unk < n) {
    m.pieces[unk].type = PieceType::kUnknown;
  }
}

std::unique_ptr<Tokenizer> make(const GgufVocab& v, bool unigram) {
  for (const auto& [id, name] : {std::pair(v.bos, "bos"), {v.eos, "eos"}, {v.eot, "eot"}, {v.unk, "unknown"}}) {
    check_id(v, id, name);
  }
  SpmModel m;
  m.unigram = unigram;
  m.charsmap = v.precompiled_charsmap;
  m.add_dummy_prefix = v.add_space_prefix.value_or(true);
  m.remove_extra_whitespaces = v.remove_extra_whitespaces.value_or(unigram);
  read_pieces(v, m);
  SpmOptions o;
  o.cut_user_defined = true;
  o.chat_template = v.chat_template;
  const auto existing = [&](int32_t id) {
    return static_cast<size_t>(id) < m.pieces.size() ? std::optional(id) : std::nullopt;
  };
  o.bos = v.bos ? v.bos : unigram ? std::nullopt : existing(1);
  const std::optional<int32_t> eos = v.eos ? v.eos : existing(unigram ? 1 : 2);
  for (const auto& id : {eos, v.eot}) {
    if (id && std::ranges::find(o.eos, *id) == o.eos.end()) o.eos.push_back(*id);
  }
  for (size_t i = 0; i < m.pieces.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const bool ends = std::ranges::find(turn_enders(), m.pieces[i].text) != turn_enders().end();
    if (ends && m.pieces[i].type == PieceType::kControl && std::ranges::find(o.eos, id) == o.eos.end())
      o.eos.push_back(id);
  }
  o.add_bos = v.add_bos.value_or(!unigram);
  o.add_eos = v.add_eos.value_or(unigram);
  if ((o.add_bos && !o.bos) || (o.add_eos && o.eos.empty())) {
    fail_data("[gguf vocabulary] add_bos_token or add_eos_token without that token");
  }
  return std::make_unique<SpmTokenizer>(std::move(m), std::move(o));
}

}  // namespace

std::unique_ptr<Tokenizer> make_gguf_spm(const GgufVocab& v) { return make(v, false); }
std::unique_ptr<Tokenizer> make_gguf_unigram(const GgufVocab& v) { return make(v, true); }

}  // namespace krait::text
