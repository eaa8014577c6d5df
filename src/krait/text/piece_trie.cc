#include "krait/text/piece_trie.h"

#include <algorithm>
#include <limits>

#include "krait/core/error.h"

namespace krait::text {

PieceTrie::PieceTrie(std::vector<std::pair<std::string_view, int32_t>> entries) {
  std::sort(entries.begin(), entries.end());
  root_.fill(-1);
  // A node covers the sorted entries [begin, end), which share their first `depth` bytes. Breadth first, so that the
  // children of a node are neighbours.
  struct Range {
    size_t begin, end, depth;
  };
  std::vector<Range> ranges;
  const auto add_children = [&](size_t begin, size_t end, size_t depth) {
    const size_t first = nodes_.size();
    for (size_t i = begin; i < end;) {
      const char label = entries[i].first[depth];
      size_t j = i + 1;
      while (j < end && entries[j].first[depth] == label) ++j;
      nodes_.push_back({.label = static_cast<uint8_t>(label)});
      ranges.push_back({i, j, depth + 1});
      i = j;
    }
    if (nodes_.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
      fail_data("[tokenizer] the vocabulary is too large");
    }
    return first;
  };
  add_children(0, entries.size(), 0);
  for (size_t i = 0; i < nodes_.size(); ++i) root_[nodes_[i].label] = static_cast<int32_t>(i);
  for (size_t n = 0; n < nodes_.size(); ++n) {
    Range r = ranges[n];
    if (entries[r.begin].first.size() == r.depth) nodes_[n].value = entries[r.begin++].second;
    const size_t first = add_children(r.begin, r.end, r.depth);
    nodes_[n].first_child = static_cast<int32_t>(first);
    nodes_[n].children = static_cast<uint16_t>(nodes_.size() - first);
  }
}

int32_t PieceTrie::child(const Node& parent, uint8_t label) const {
  const auto begin = nodes_.begin() + parent.first_child, end = begin + parent.children;
  const auto it = std::lower_bound(begin, end, label, [](const Node& n, uint8_t l) { return n.label < l; });
  return it != end && it->label == label ? static_cast<int32_t>(it - nodes_.begin()) : -1;
}

}  // namespace krait::text
