#include "krait/text/spm_bpe.h"

#include <limits>
#include <queue>
#include <vector>

#include "krait/core/error.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

struct Symbol {
  std::string_view text;   // empty: joined to its left neighbour
  int32_t previous, next;  // -1: none
  bool frozen;
};

struct Pair {
  float score;
  int32_t left, right;
  size_t size;  // of both; a pair that has changed since is stale

  bool operator<(const Pair& other) const {  // std::priority_queue yields the greatest
    return score < other.score || (score == other.score && left > other.left);
  }
};

class Merger {
 public:
  Merger(std::string_view text, const SpmBpePieces& pieces, const PieceTrie& user_defined) : pieces_(pieces) {
    while (!text.empty()) {
      const size_t special = user_defined.longest(text).length;
      const size_t n = special > 0 ? special : utf8_length(text[0]);
      const auto i = static_cast<int64_t>(symbols_.size());
      if (i >= std::numeric_limits<int32_t>::max()) fail_data("[sentencepiece] a text of 2^31 characters or more");
      symbols_.push_back({text.substr(0, n), static_cast<int32_t>(i - 1), static_cast<int32_t>(i + 1), special > 0});
      text.remove_prefix(n);
    }
    if (!symbols_.empty()) symbols_.back().next = -1;
    for (size_t i = 1; i < symbols_.size(); ++i) offer(static_cast<int32_t>(i - 1), static_cast<int32_t>(i));
  }

  void run() {
    while (!queue_.empty()) {
      const Pair p = queue_.top();
      queue_.pop();
      Symbol &left = at(p.left), &right = at(p.right);
      if (left.text.empty() || right.text.empty() || left.text.size() + right.text.size() != p.size) continue;
      left.text = {left.text.data(), p.size};
      right.text = {};
      left.next = right.next;
      if (left.next >= 0) at(left.next).previous = p.left;
      offer(left.previous, p.left);
      offer(p.left, left.next);
    }
  }

  void emit(const std::function<void(std::string_view)>& out) const {
    for (int32_t i = symbols_.empty() ? -1 : 0; i >= 0; i = symbols_[static_cast<size_t>(i)].next) {
      std::vector<std::string_view> open = {symbols_[static_cast<size_t>(i)].text};
      while (!open.empty()) {
        const std::string_view piece = open.back();
        open.pop_back();
        const auto halves = taken_apart_.find(piece);
        if (halves == taken_apart_.end()) {
          out(piece);
        } else {
          open.push_back(piece.substr(halves->second));
          open.push_back(piece.substr(0, halves->second));
        }
      }
    }
  }

 private:
  Symbol& at(int32_t i) { return symbols_[static_cast<size_t>(i)]; }

  void offer(int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const Symbol &l = at(left), &r = at(right);
    if (l.frozen || r.frozen) return;
    const std::string_view both(l.text.data(), l.text.size() + r.text.size());  // neighbours in the text
    const auto it = pieces_.find(both);
    if (it == pieces_.end()) return;
    queue_.push({it->second.score, left, right, both.size()});
    if (it->second.unused) taken_apart_[both] = l.text.size();
  }

  const SpmBpePieces& pieces_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Pair> queue_;
  std::unordered_map<std::string_view, size_t> taken_apart_;  // unused piece -> bytes of its left half
};

}  // namespace

void spm_bpe(std::string_view text, const SpmBpePieces& pieces, const PieceTrie& user_defined,
             const std::function<void(std::string_view)>& emit) {
  Merger m(text, pieces, user_defined);
  m.run();
  m.emit(emit);
}

}  // namespace krait::text
