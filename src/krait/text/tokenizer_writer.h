// Writes a byte-level BPE vocabulary as the tokenizers package does.
#pragma once
#include <string>
#include <vector>

#include "krait/text/bpe_learner.h"

namespace krait::text {

struct ByteLevelBpe {
  const std::vector<std::string>& special;  // ids 0, 1, …; the tokens of `bpe` follow
  const LearnedBpe& bpe;
  std::string regex;  // how texts are split
  bool nfc = false;
};

// The content of a tokenizer.json. A special token that is also a token of the vocabulary is an error (kBadData).
std::string write_byte_level_bpe(const ByteLevelBpe&);

}  // namespace krait::text
