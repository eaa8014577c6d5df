// SpmModel: a SentencePiece vocabulary and its rules as plain data, read from a `.model` file or built from GGUF.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace krait::text {

// Values as in the file format, and in tokenizer.ggml.token_type.
enum class PieceType : uint8_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct SpmPiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::kNormal;
};

struct SpmModel {
  bool unigram = false;  // else BPE by score
  std::vector<SpmPiece> pieces;
  bool byte_fallback = false;
  std::string bos = "<s>", eos = "</s>";       // piece texts; a text that is no control piece: there is none
  std::string unk_surface = " \xE2\x81\x87 ";  // what the unknown piece decodes to
  std::string charsmap;                        // precompiled rules, see Charsmap
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
};

// Parses a ModelProto; `what` names it in messages. Throws kBadData: malformed, or of a kind that is not supported
// (word and char models, whitespace as suffix).
SpmModel parse_spm_model(std::string_view file, const std::string& what);

}  // namespace krait::text
