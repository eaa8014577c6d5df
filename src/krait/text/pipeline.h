// PipelineTokenizer: added tokens, normalizer, pre-tokenizers, a piece model, post-processing and a decoder: the form
// of tokenizer.json, into which GGUF's byte-level vocabularies fit as well.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krait/text/added_tokens.h"
#include "krait/text/factories.h"
#include "krait/text/normalizer.h"
#include "krait/text/pre_tokenizer.h"

namespace krait::text {

// Bytes of a token inside a text; `first`: at its beginning.
using TokenDecoder = std::function<std::string(int32_t id, std::string_view token, bool first)>;

struct Pipeline {
  std::string name, chat_template;
  std::vector<AddedToken> added;
  TextNormalizer normalizer;
  std::vector<std::unique_ptr<PreTokenizer>> pre_tokenizers;
  std::unique_ptr<PieceModel> model;
  std::vector<int32_t> before, after;  // special tokens around a text
  TokenDecoder decoder;
  bool joins_bytes = false;  // runs of tokens <0xXX> decode to characters
  std::optional<int32_t> bos;
  std::vector<int32_t> eos;
};

std::unique_ptr<Tokenizer> make_pipeline_tokenizer(Pipeline);

}  // namespace krait::text
