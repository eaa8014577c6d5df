// The tokenizer kinds behind open_tokenizer() and make_gguf_tokenizer(), and the seams between them.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "krait/text/side_files.h"
#include "krait/text/tokenizer.h"

namespace krait::text {

// Files. Each throws kBadData with the reason.
std::unique_ptr<Tokenizer> make_json_tokenizer(const std::filesystem::path& file, const SideFiles&);
// The same from text; `what` names it in messages.
std::unique_ptr<Tokenizer> make_json_tokenizer(std::string_view text, const std::string& what, const SideFiles&);
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(const std::filesystem::path& file, const SideFiles&);
std::unique_ptr<Tokenizer> make_rwkv_tokenizer(const std::filesystem::path& file, const SideFiles&);

// GGUF vocabularies, by tokenizer.ggml.model.
std::unique_ptr<Tokenizer> make_gguf_bpe(const GgufVocab&);      // "gpt2"
std::unique_ptr<Tokenizer> make_gguf_spm(const GgufVocab&);      // "llama"
std::unique_ptr<Tokenizer> make_gguf_unigram(const GgufVocab&);  // "t5"
std::unique_ptr<Tokenizer> make_gguf_rwkv(const GgufVocab&);     // "rwkv"

// The "model" of a tokenizer.json: one piece of normalized, pre-tokenized text to ids. Everything around it (added
// tokens, normalizers, pre-tokenizers, post-processor, decoder) is the JSON tokenizer's.
class PieceModel {
 public:
  virtual ~PieceModel() = default;
  virtual std::string name() const = 0;
  virtual int64_t size() const = 0;                      // ids lie in [0, size)
  virtual std::string_view token(int32_t id) const = 0;  // as written in the vocabulary; empty: no such id
  virtual std::optional<int32_t> id(std::string_view token) const = 0;
  virtual void encode(std::string_view piece, std::vector<int32_t>& out) const = 0;  // appends; thread-safe
};

// "type": "Unigram". vocab: token and log probability, in id order.
std::unique_ptr<PieceModel> make_json_unigram(std::vector<std::pair<std::string, double>> vocab,
                                              std::optional<int32_t> unk_id, bool byte_fallback);

// "type": "Precompiled" normalizer: SentencePiece's character map (the decoded bytes of precompiled_charsmap).
std::function<std::string(std::string_view)> make_charsmap_normalizer(std::string charsmap);

}  // namespace krait::text
