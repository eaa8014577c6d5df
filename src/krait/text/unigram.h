// The most probable segmentation of a text under a unigram language model over pieces (Viterbi).
#pragma once
#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "krait/text/piece_trie.h"
#include "krait/text/utf8.h"

namespace krait::text {

inline constexpr double kUnigramUnkPenalty = 10;  // an unknown character scores this much less than the worst piece

struct Segment {
  size_t begin, end;
  int32_t id;
};

// score(id, bytes): log probability of a piece. A character that is no piece itself may be an `unk`. Sums are double
// (in float they would decide for the wrong piece after some ten thousand tokens); ties go to the path found first.
// `text`: valid UTF-8.
template <class Score>
std::vector<Segment> most_probable_segments(std::string_view text, const PieceTrie& pieces, const Score& score,
                                            double unk_score, int32_t unk) {
  constexpr size_t kNone = ~size_t{0};
  struct Node {
    size_t begin = ~size_t{0};  // of the last piece on the best path that ends here
    double score = 0;
    int32_t id = -1;
  };
  std::vector<Node> best(text.size() + 1);
  for (size_t begin = 0; begin < text.size();) {
    const double here = best[begin].score;
    const auto offer = [&](size_t length, int32_t id, double total) {
      Node& n = best[begin + length];
      if (n.begin == kNone || total > n.score) n = {begin, total, id};
    };
    const size_t character = std::min<size_t>(utf8_length(text[begin]), text.size() - begin);
    bool known = false;
    pieces.each_prefix(text.substr(begin), [&](size_t length, int32_t id) {
      offer(length, id, score(id, length) + here);
      known |= length == character;
    });
    if (!known) offer(character, unk, unk_score + here);
    begin += character;
  }
  std::vector<Segment> path;
  for (size_t end = text.size(); end > 0; end = best[end].begin) path.push_back({best[end].begin, end, best[end].id});
  std::ranges::reverse(path);
  return path;
}

}  // namespace krait::text
