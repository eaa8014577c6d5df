// PieceTrie: finds the vocabulary entries that begin at a place of a text. Keys are bytes; immutable once built.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace krait::text {

class PieceTrie {
 public:
  // Keys must be distinct and not empty; values >= 0. Keys are not kept.
  PieceTrie() : PieceTrie(std::vector<std::pair<std::string_view, int32_t>>{}) {}
  explicit PieceTrie(std::vector<std::pair<std::string_view, int32_t>> entries);

  struct Match {
    size_t length = 0;  // 0: none
    int32_t value = -1;
  };
  // The longest key that `text` begins with.
  Match longest(std::string_view text) const {
    Match best;
    each_prefix(text, [&](size_t length, int32_t value) { best = {length, value}; });
    return best;
  }

  // Calls visit(length, value) for every key that `text` begins with, shortest first.
  template <class Visit>
  void each_prefix(std::string_view text, const Visit& visit) const {
    if (text.empty()) return;
    int32_t node = root_[static_cast<uint8_t>(text[0])];
    for (size_t i = 1; node >= 0; ++i) {
      const Node& n = nodes_[static_cast<size_t>(node)];
      if (n.value >= 0) visit(i, n.value);
      if (i == text.size()) return;
      node = child(n, static_cast<uint8_t>(text[i]));
    }
  }

 private:
  // Children of a node stand together, in the order of their labels.
  struct Node {
    int32_t value = -1;
    int32_t first_child = 0;
    uint16_t children = 0;
    uint8_t label = 0;
  };
  int32_t child(const Node& parent, uint8_t label) const;

  std::array<int32_t, 256> root_;
  std::vector<Node> nodes_;
};

}  // namespace krait::text
