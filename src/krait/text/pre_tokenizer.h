// Pre-tokenizers: text into the pieces that the model encodes one by one.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "krait/text/regex.h"
#include "krait/text/split_patterns.h"

namespace krait::text {

class PieceSink {
 public:
  virtual ~PieceSink() = default;
  // `first`: the piece begins where the whole input began. Empty pieces are not passed on.
  virtual void piece(std::string_view text, bool first) = 0;
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void split(std::string_view text, bool first, PieceSink& out) const = 0;
};

// What becomes of the matches of a pattern.
enum class SplitBehavior : uint8_t { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

enum class Prepend : uint8_t { kNever, kFirst, kAlways };

std::unique_ptr<PreTokenizer> split_by_pieces(PieceEnd);  // a pattern that covers everything
std::unique_ptr<PreTokenizer> split_by_regex(const std::string& regex, SplitBehavior, bool invert);
std::unique_ptr<PreTokenizer> split_by_string(std::string literal, SplitBehavior, bool invert);
// At every character for which `matches` holds.
std::unique_ptr<PreTokenizer> split_by_character(bool (*matches)(char32_t), SplitBehavior);
std::unique_ptr<PreTokenizer> split_words();  // \w+|[^\w\s]+, the rest removed
// Bytes to their characters (byte_chars.h), after `pattern` if there is one.
std::unique_ptr<PreTokenizer> byte_level(bool add_prefix_space, PieceEnd pattern);
std::unique_ptr<PreTokenizer> metaspace(std::string replacement, Prepend, bool split);

// Runs `stages` one after another; without any the text is one piece.
void pre_tokenize(const std::vector<std::unique_ptr<PreTokenizer>>& stages, std::string_view text, bool first,
                  PieceSink&);

}  // namespace krait::text
