// SpmTokenizer: a Tokenizer over an SpmModel, whichever file that came from.
#pragma once
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "krait/text/piece_trie.h"
#include "krait/text/spm_bpe.h"
#include "krait/text/spm_model.h"
#include "krait/text/spm_normalizer.h"
#include "krait/text/tokenizer.h"

namespace krait::text {

struct SpmOptions {
  std::optional<int32_t> bos;
  std::vector<int32_t> eos;
  bool add_bos = false, add_eos = false;  // need bos and a first eos
  bool cut_user_defined = false;  // user-defined pieces separate texts, as llama.cpp has it; else they are part of one
  bool prefix_every_part = true;  // each part between special tokens gets the leading space, not the first alone
  std::string chat_template;
};

class SpmTokenizer final : public Tokenizer {
 public:
  // Throws kBadData: a piece twice, no unknown piece, byte fallback without all 256 byte pieces.
  SpmTokenizer(SpmModel, SpmOptions);
  SpmTokenizer(const SpmTokenizer&) = delete;  // the indices view the pieces
  SpmTokenizer& operator=(const SpmTokenizer&) = delete;

  std::string name() const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(model_.pieces.size()); }
  std::optional<int32_t> bos_id() const override { return options_.bos; }
  std::vector<int32_t> eos_ids() const override { return options_.eos; }
  std::string chat_template() const override { return options_.chat_template; }
  std::vector<int32_t> encode(std::string_view text, EncodeOptions = {}) const override;
  std::string token_bytes(int32_t id, bool first = false) const override;
  bool is_byte(int32_t id) const override;
  bool is_special(int32_t id) const override;
  std::optional<int32_t> token_id(std::string_view token) const override;

 private:
  const SpmPiece* piece(int32_t id) const;  // null: no such id
  void index_pieces();
  void encode_text(std::string_view text, bool prefix, std::vector<int32_t>& out) const;
  void encode_unigram(std::string_view normalized, const std::function<void(std::string_view, int32_t)>& emit) const;

  SpmModel model_;
  SpmOptions options_;
  std::unordered_map<std::string_view, int32_t> ids_;  // every piece
  SpmBpePieces bpe_;                                   // BPE: what texts can be made of
  PieceTrie unigram_;                                  // unigram: the same
  PieceTrie user_defined_, cut_;  // inside a text; cut out of a text when special tokens are parsed
  PieceTrie always_cut_;          // cut out whether or not
  std::array<int32_t, 256> byte_ids_;
  int32_t unk_ = -1;
  float min_score_ = 0, max_score_ = 0;  // of normal pieces
  std::optional<SpmNormalizer> normalizer_;
};

}  // namespace krait::text
