// BpeModel: joins adjacent symbols by rank until no pair is left (Sennrich et al., 2016).
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "krait/text/factories.h"
#include "krait/text/vocab.h"

namespace krait::text {

struct BpeOptions {
  std::optional<std::string> unk_token;  // for characters the vocabulary lacks; without it they vanish
  bool fuse_unk = false;                 // a run of them gives one unk_token
  bool byte_fallback = false;            // <0xXX> tokens stand for the bytes of such characters
  bool ignore_merges = false;            // a piece that is a token is taken whole
};

using Merges = std::vector<std::pair<std::string_view, std::string_view>>;  // index = rank

// Throws kBadData on a merge whose parts or result are not in the vocabulary, naming it.
std::unique_ptr<PieceModel> make_bpe(Vocab vocab, const Merges& merges, BpeOptions options);

}  // namespace krait::text
