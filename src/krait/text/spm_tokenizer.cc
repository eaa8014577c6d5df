#include "krait/text/spm_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "krait/core/error.h"
#include "krait/text/byte_chars.h"
#include "krait/text/unigram.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

std::string with_spaces(std::string_view piece) {
  std::string out;
  for (size_t i = 0; i < piece.size();) {
    const bool space = piece.substr(i).starts_with(kSpaceSymbol);
    out += space ? ' ' : piece[i];
    i += space ? kSpaceSymbol.size() : 1;
  }
  return out;
}

}  // namespace

SpmTokenizer::SpmTokenizer(SpmModel model, SpmOptions options)
    : model_(std::move(model)), options_(std::move(options)) {
  if (model_.pieces.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    fail_data(fmt::format("[sentencepiece] {} pieces", model_.pieces.size()));
  }
  index_pieces();
  if (unk_ < 0) fail_data("[sentencepiece] there is no unknown piece");
  if (model_.byte_fallback && std::ranges::count(byte_ids_, -1) > 0) {
    fail_data(fmt::format("[sentencepiece] byte fallback without {} of the 256 byte pieces",
                          std::ranges::count(byte_ids_, -1)));
  }
  normalizer_.emplace(model_, user_defined_);
}

void SpmTokenizer::index_pieces() {
  using Entries = std::vector<std::pair<std::string_view, int32_t>>;
  Entries ordinary, user, specials;
  byte_ids_.fill(-1);
  min_score_ = std::numeric_limits<float>::max();
  max_score_ = std::numeric_limits<float>::min();  // SentencePiece begins at the smallest positive number
  for (size_t i = 0; i < model_.pieces.size(); ++i) {
    const SpmPiece& p = model_.pieces[i];
    const auto id = static_cast<int32_t>(i);
    if (!ids_.try_emplace(p.text, id).second) {
      fail_data(fmt::format("[sentencepiece] piece '{}' is there twice: {} and {}", p.text, ids_.at(p.text), id));
    }
    switch (p.type) {
      case PieceType::kUnknown:
        if (unk_ >= 0) fail_data(fmt::format("[sentencepiece] two unknown pieces: {} and {}", unk_, id));
        unk_ = id;
        specials.emplace_back(p.text, id);
        break;
      case PieceType::kControl:
        specials.emplace_back(p.text, id);
        break;
      case PieceType::kByte: {
        const int value = fallback_byte(p.text);
        if (value < 0) fail_data(fmt::format("[sentencepiece] byte piece {} reads '{}'", id, p.text));
        byte_ids_[static_cast<size_t>(value)] = id;
        break;
      }
      case PieceType::kUserDefined:
        user.emplace_back(p.text, id);
        break;
      case PieceType::kNormal:
        min_score_ = std::min(min_score_, p.score);
        max_score_ = std::max(max_score_, p.score);
        ordinary.emplace_back(p.text, id);
        break;
      case PieceType::kUnused:
        if (!model_.unigram) ordinary.emplace_back(p.text, id);
        break;
    }
  }
  if (options_.cut_user_defined) {
    specials.insert(specials.end(), user.begin(), user.end());
    always_cut_ = PieceTrie(std::move(user));
  } else {
    ordinary.insert(ordinary.end(), user.begin(), user.end());
    user_defined_ = PieceTrie(std::move(user));
  }
  cut_ = PieceTrie(std::move(specials));
  if (model_.unigram) {
    unigram_ = PieceTrie(std::move(ordinary));
    return;
  }
  for (const auto& [text, id] : ordinary) {
    const SpmPiece& p = model_.pieces[static_cast<size_t>(id)];
    bpe_.emplace(text, SpmBpePiece{id, p.score, p.type == PieceType::kUnused});
  }
}

std::string SpmTokenizer::name() const {
  return fmt::format("SentencePiece {}{}", model_.unigram ? "unigram" : "BPE",
                     model_.byte_fallback ? " with byte fallback" : "");
}

void SpmTokenizer::encode_unigram(std::string_view normalized,
                                  const std::function<void(std::string_view, int32_t)>& emit) const {
  // A user-defined piece gets a bonus that makes it win. The constants are SentencePiece's.
  const auto score = [&](int32_t id, size_t bytes) {
    const SpmPiece& p = model_.pieces[static_cast<size_t>(id)];
    if (p.type != PieceType::kUserDefined) return static_cast<double>(p.score);
    return static_cast<double>(static_cast<float>(bytes) * max_score_) - 0.1;
  };
  const float unk_score = min_score_ - static_cast<float>(kUnigramUnkPenalty);
  for (const Segment& s : most_probable_segments(normalized, unigram_, score, unk_score, unk_)) {
    emit(normalized.substr(s.begin, s.end - s.begin), s.id);
  }
}

void SpmTokenizer::encode_text(std::string_view text, bool prefix, std::vector<int32_t>& out) const {
  const std::string normalized = normalizer_->normalize(text, prefix);
  bool after_unknown = false;  // neighbouring unknown characters are one unknown piece
  const auto emit = [&](std::string_view piece, int32_t id) {
    if (id == unk_ && model_.byte_fallback) {
      for (const char c : piece) out.push_back(byte_ids_[static_cast<uint8_t>(c)]);
      return;
    }
    if (id != unk_ || !after_unknown) out.push_back(id);
    after_unknown = id == unk_;
  };
  if (model_.unigram) return encode_unigram(normalized, emit);
  spm_bpe(normalized, bpe_, user_defined_, [&](std::string_view piece) {
    const auto it = bpe_.find(piece);
    emit(piece, it == bpe_.end() ? unk_ : it->second.id);
  });
}

std::vector<int32_t> SpmTokenizer::encode(std::string_view text, EncodeOptions o) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = replace_invalid_utf8(text);
    text = repaired;
  }
  std::vector<int32_t> out;
  if (o.add_special && options_.add_bos) out.push_back(options_.bos.value());
  const PieceTrie& cut = o.parse_special ? cut_ : always_cut_;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const auto special = cut.longest(text.substr(i));
    if (special.length == 0) {
      ++i;
      continue;
    }
    encode_text(text.substr(begin, i - begin), begin == 0 || options_.prefix_every_part, out);
    out.push_back(special.value);
    begin = i += special.length;
  }
  encode_text(text.substr(begin), begin == 0 || options_.prefix_every_part, out);
  if (o.add_special && options_.add_eos) out.push_back(options_.eos.at(0));
  return out;
}

const SpmPiece* SpmTokenizer::piece(int32_t id) const {
  return id >= 0 && id < vocab_size() ? &model_.pieces[static_cast<size_t>(id)] : nullptr;
}

std::string SpmTokenizer::token_bytes(int32_t id, bool first) const {
  const SpmPiece* p = piece(id);
  if (p == nullptr) return {};
  if (p->type == PieceType::kByte) return {static_cast<char>(fallback_byte(p->text))};
  if (p->type == PieceType::kUnknown) return model_.unk_surface;
  if (p->type == PieceType::kControl) return p->text;
  std::string_view text = p->text;
  if (first && (model_.add_dummy_prefix || model_.remove_extra_whitespaces) && text.starts_with(kSpaceSymbol)) {
    text.remove_prefix(kSpaceSymbol.size());
  }
  return with_spaces(text);
}

bool SpmTokenizer::is_byte(int32_t id) const {
  const SpmPiece* p = piece(id);
  return p != nullptr && p->type == PieceType::kByte;
}

bool SpmTokenizer::is_special(int32_t id) const {
  const SpmPiece* p = piece(id);
  return p != nullptr && p->type == PieceType::kControl;
}

std::optional<int32_t> SpmTokenizer::token_id(std::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? std::nullopt : std::optional(it->second);
}

}  // namespace krait::text
