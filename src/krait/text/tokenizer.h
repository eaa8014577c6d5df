// Tokenizer: text <-> token ids, for every vocabulary kind that checkpoints come with.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace krait::text {

struct EncodeOptions {
  bool add_special = true;    // what the model's own post-processor adds (BOS, EOS)
  bool parse_special = true;  // special tokens written in the text become their ids; else they are plain text
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::string name() const = 0;    // "byte-level BPE (llama3)", "SentencePiece unigram", …
  virtual int64_t vocab_size() const = 0;  // ids lie in [0, vocab_size)
  virtual std::optional<int32_t> bos_id() const = 0;
  virtual std::vector<int32_t> eos_ids() const = 0;  // every id that ends a text or a turn
  virtual std::string chat_template() const = 0;     // Jinja source; empty: none

  // Invalid UTF-8 is replaced by U+FFFD, as the tokenizers package sees it.
  virtual std::vector<int32_t> encode(std::string_view text, EncodeOptions = {}) const = 0;

  // The bytes a token stands for inside a text (may be part of a character). `first`: it is the first of the text
  // (SentencePiece drops its leading space). Empty for an id outside the vocabulary.
  virtual std::string token_bytes(int32_t id, bool first = false) const = 0;
  virtual bool is_special(int32_t id) const = 0;
  virtual std::optional<int32_t> token_id(std::string_view token) const = 0;  // of an exact vocabulary entry

  // Text of the ids; incomplete characters become U+FFFD. Throws kBadData on an id outside the vocabulary. Where byte
  // tokens make no characters, the number of U+FFFD is that of the vocabulary's own package.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;

 protected:
  // Byte fallback: whether a token is one byte of characters that the vocabulary lacks, and the text of such a run.
  virtual bool is_byte(int32_t) const { return false; }
  virtual std::string text_of_bytes(std::string_view run) const;  // here: U+FFFD for each byte of no character
};

// Whether a folder has tokenizer.json, tokenizer.model(.v*) or a RWKV vocabulary.
bool has_tokenizer(const std::filesystem::path& folder);
// From a folder, tokenizer.json, *.model(.v*) (SentencePiece), or rwkv_vocab*.txt; reads chat templates and special
// tokens from tokenizer_config.json / special_tokens_map.json beside it. Throws kBadData with the reason.
std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path&);

// The vocabulary of a GGUF file (spec/gguf.md §6).
struct GgufVocab {
  std::string model, pre;
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;
  std::vector<std::string> merges;
  std::optional<int32_t> bos, eos, eot, unk, pad;
  std::optional<bool> add_bos, add_eos, add_space_prefix, remove_extra_whitespaces;
  std::string precompiled_charsmap;  // SentencePiece's character rules, as bytes
  std::string chat_template;
  std::string huggingface_json;  // a whole tokenizer.json: if it is there it decides, for it says more than the rest
};
std::unique_ptr<Tokenizer> make_gguf_tokenizer(const GgufVocab&);

}  // namespace krait::text
