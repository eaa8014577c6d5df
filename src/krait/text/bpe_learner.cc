#include "krait/text/bpe_learner.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <queue>
#include <span>
#include <unordered_map>

#include "krait/text/byte_chars.h"

namespace krait::text {
namespace {

using PairKey = uint64_t;
PairKey key_of(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

struct Pair {
  int64_t count = 0;
  int32_t result = -1;          // once it has been merged
  std::vector<uint32_t> words;  // that have it, or had it; some more than once
};

struct Candidate {
  int64_t count;
  PairKey pair;
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

// The bytes sorted by the characters they are written as, and the place of each.
struct ByteOrder {
  std::array<uint8_t, 256> bytes;
  std::array<int32_t, 256> place;
  ByteOrder() {
    std::array<std::string, 256> chars;
    std::iota(bytes.begin(), bytes.end(), uint8_t{0});
    for (size_t b = 0; b < 256; ++b) append_byte_chars(chars[b], std::string(1, static_cast<char>(b)));
    std::ranges::sort(bytes, {}, [&](uint8_t b) { return chars[b]; });  // UTF-8 sorts as code points do
    for (size_t i = 0; i < 256; ++i) place[bytes[i]] = static_cast<int32_t>(i);
  }
};

class Learner {
 public:
  Learner(const PieceCounts& pieces, const LearnBpeOptions& options) : options_(options) {
    const ByteOrder order;
    for (const uint8_t b : order.bytes) add_token(std::string(1, static_cast<char>(b)));
    for (int64_t i = 0; i < pieces.size(); ++i) {
      const std::string_view piece = pieces.piece(i);
      words_.push_back({symbols_.size(), piece.size(), pieces.count(i)});
      for (const char c : piece) symbols_.push_back(order.place[static_cast<unsigned char>(c)]);
    }
    for (uint32_t w = 0; w < words_.size(); ++w) {
      const auto s = symbols_of(w);
      for (size_t i = 0; i + 1 < s.size(); ++i) change(s[i], s[i + 1], words_[w].count, w);
    }
    push_changed();
  }

  LearnedBpe run() {
    while (std::ssize(out_.tokens) < options_.n_tokens && !queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      Pair& pair = pairs_.at(top.pair);
      if (pair.count <= 0) continue;
      // A pair that was merged and is there again: its merge is older than what brought it back, so that encoding a
      // text applies it at once.
      const bool again = pair.result >= 0;
      if (!again && top.count != pair.count) {
        queue_.push({pair.count, top.pair});
        continue;
      }
      if (!again && pair.count < options_.min_count) break;
      merge(top.pair, pair, again);
      if (options_.progress) options_.progress(std::ssize(out_.tokens));
    }
    return std::move(out_);
  }

 private:
  struct Word {
    size_t begin, length;
    int64_t count;
  };

  std::span<int32_t> symbols_of(uint32_t w) { return std::span(symbols_).subspan(words_[w].begin, words_[w].length); }

  int32_t add_token(const std::string& bytes) {
    const auto [at, added] = id_of_.emplace(bytes, static_cast<int32_t>(out_.tokens.size()));
    if (added) out_.tokens.push_back(bytes);
    return at->second;
  }

  void change(int32_t left, int32_t right, int64_t by, uint32_t word) {
    const PairKey key = key_of(left, right);
    Pair& pair = pairs_[key];
    pair.count += by;
    if (by <= 0) return;
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
    changed_.push_back(key);
  }

  void push_changed() {
    std::ranges::sort(changed_);
    const auto repeated = std::ranges::unique(changed_);
    changed_.erase(repeated.begin(), repeated.end());
    for (const PairKey key : changed_) {
      const Pair& pair = pairs_.at(key);
      const bool again = pair.result >= 0;
      if (pair.count > 0) queue_.push({again ? std::numeric_limits<int64_t>::max() : pair.count, key});
    }
    changed_.clear();
  }

  void merge(PairKey key, Pair& pair, bool again) {
    const auto left = static_cast<int32_t>(key >> 32), right = static_cast<int32_t>(key);
    if (!again) {
      const auto text = [this](int32_t t) { return out_.tokens[static_cast<size_t>(t)]; };
      pair.result = add_token(text(left) + text(right));
      out_.merges.push_back({left, right, pair.result});
    }
    const int32_t result = pair.result;
    std::vector<uint32_t> words = std::move(pair.words);
    pair.words.clear();
    std::ranges::sort(words);
    const auto repeated = std::ranges::unique(words);
    words.erase(repeated.begin(), repeated.end());
    for (const uint32_t w : words) merge_in(w, left, right, result);
    pair.count = 0;  // what overlapped itself was counted twice
    push_changed();
  }

  // Pairs beside a place change as if the others of the word had not been merged yet, from left to right.
  void merge_in(uint32_t w, int32_t left, int32_t right, int32_t result) {
    const auto s = symbols_of(w);
    const int64_t n = words_[w].count;
    size_t to = 0;
    for (size_t from = 0; from < s.size(); ++from, ++to) {
      if (from + 1 == s.size() || s[from] != left || s[from + 1] != right) {
        s[to] = s[from];
        continue;
      }
      if (to > 0) {
        change(s[to - 1], left, -n, w);
        change(s[to - 1], result, n, w);
      }
      if (from + 2 < s.size()) {
        change(right, s[from + 2], -n, w);
        change(result, s[from + 2], n, w);
      }
      s[to] = result;
      ++from;
    }
    words_[w].length = to;
  }

  const LearnBpeOptions& options_;
  LearnedBpe out_;
  std::unordered_map<std::string, int32_t> id_of_;
  std::vector<int32_t> symbols_;  // of all words, each in its place
  std::vector<Word> words_;
  std::unordered_map<PairKey, Pair> pairs_;
  std::priority_queue<Candidate> queue_;
  std::vector<PairKey> changed_;
};

}  // namespace

LearnedBpe learn_bpe(const PieceCounts& pieces, const LearnBpeOptions& options) {
  return Learner(pieces, options).run();
}

}  // namespace krait::text
