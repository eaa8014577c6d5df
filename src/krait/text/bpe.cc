#include "krait/text/bpe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <queue>

#include "krait/core/error.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

constexpr int32_t kNoRank = INT32_MAX;

struct Merge {
  int32_t rank = kNoRank;
  int32_t id = -1;
};

// (left, right) -> merge; open addressing, at most half full.
class MergeTable {
 public:
  explicit MergeTable(size_t count) : slots_(std::bit_ceil(std::max<size_t>(16, count * 2))) {}

  // The last one counts if a pair is listed twice.
  void set(int32_t left, int32_t right, Merge m) {
    Slot& s = slots_[find(key(left, right))];
    s.key = key(left, right);
    s.merge = m;
  }
  Merge get(int32_t left, int32_t right) const { return slots_[find(key(left, right))].merge; }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};
  struct Slot {
    uint64_t key = kFree;
    Merge merge;
  };
  static uint64_t key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t find(uint64_t k) const {
    const size_t mask = slots_.size() - 1;
    size_t at = (k * 0x9E3779B97F4A7C15u >> 20) & mask;
    while (slots_[at].key != k && slots_[at].key != kFree) at = (at + 1) & mask;
    return at;
  }
  std::vector<Slot> slots_;
};

class BpeModel final : public PieceModel {
 public:
  BpeModel(Vocab vocab, const Merges& merges, BpeOptions options);

  std::string name() const override { return "BPE"; }
  int64_t size() const override { return vocab_.size(); }
  std::string_view token(int32_t id) const override { return vocab_.token(id); }
  std::optional<int32_t> id(std::string_view token) const override { return vocab_.id(token); }
  void encode(std::string_view piece, std::vector<int32_t>& out) const override;

 private:
  // Beyond this many symbols the queue is used: scanning all pairs for each join would be quadratic.
  static constexpr size_t kScanLimit = 48;

  void symbols_of(std::string_view piece, std::vector<int32_t>& out) const;
  bool byte_symbols(std::string_view character, std::vector<int32_t>& out) const;
  size_t merge_by_scan(int32_t* ids, size_t n) const;
  size_t merge_by_queue(int32_t* ids, size_t n) const;

  Vocab vocab_;
  MergeTable merges_;
  BpeOptions options_;
  int32_t unk_id_ = -1;
  std::array<int32_t, 0x800> char_ids_;  // of characters of one and two bytes
  std::array<int32_t, 256> byte_ids_{};  // of <0xXX>
};

BpeModel::BpeModel(Vocab vocab, const Merges& merges, BpeOptions options)
    : vocab_(std::move(vocab)), merges_(merges.size()), options_(std::move(options)) {
  std::string joined;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    joined.assign(left).append(right);
    const int32_t l = vocab_.find(left), r = vocab_.find(right), id = vocab_.find(joined);
    if (l < 0 || r < 0 || id < 0) {
      fail_data("[BPE] merge " + std::to_string(rank) + " joins '" + std::string(left) + "' and '" +
                std::string(right) + "': the vocabulary lacks " + (id < 0 ? "the result" : "one of them"));
    }
    merges_.set(l, r, {static_cast<int32_t>(rank), id});
  }
  for (char32_t c = 0; c < char_ids_.size(); ++c) char_ids_[c] = vocab_.find(to_utf8(c));
  for (int b = 0; b < 256; ++b) {
    constexpr char kHex[] = "0123456789ABCDEF";
    const std::string token = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
    byte_ids_[static_cast<size_t>(b)] = vocab_.find(token);
  }
  if (options_.unk_token) {
    unk_id_ = vocab_.find(*options_.unk_token);
    if (unk_id_ < 0) fail_data("[BPE] unk_token '" + *options_.unk_token + "' is not in the vocabulary");
  }
}

bool BpeModel::byte_symbols(std::string_view character, std::vector<int32_t>& out) const {
  const size_t start = out.size();
  for (const char b : character) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(b)];
    if (id < 0) {
      out.resize(start);
      return false;
    }
    out.push_back(id);
  }
  return true;
}

// One symbol a character. An unknown one waits in `pending` since the next may join it.
void BpeModel::symbols_of(std::string_view piece, std::vector<int32_t>& out) const {
  bool pending = false;
  const auto flush = [&] {
    if (pending) out.push_back(unk_id_);
    pending = false;
  };
  for (size_t i = 0; i < piece.size();) {
    const Utf8Char c = decode_valid_utf8(piece.data() + i);
    const std::string_view bytes = piece.substr(i, c.bytes);
    const int32_t id = c.code < char_ids_.size() ? char_ids_[c.code] : vocab_.find(bytes);
    i += c.bytes;
    if (id >= 0) {
      flush();
      out.push_back(id);
    } else if (options_.byte_fallback && byte_symbols(bytes, out)) {
      continue;
    } else if (unk_id_ >= 0) {
      if (!options_.fuse_unk) flush();
      pending = true;
    }
  }
  flush();
}

size_t BpeModel::merge_by_scan(int32_t* ids, size_t n) const {
  std::array<Merge, kScanLimit> pairs;  // pairs[i] joins symbols i and i + 1
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = merges_.get(ids[i], ids[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == kNoRank) break;
    ids[best] = pairs[best].id;
    for (size_t i = best + 1; i + 1 < n; ++i) {
      ids[i] = ids[i + 1];
      pairs[i - 1] = pairs[i];
    }
    --n;
    if (best > 0) pairs[best - 1] = merges_.get(ids[best - 1], ids[best]);
    if (best + 1 < n) pairs[best] = merges_.get(ids[best], ids[best + 1]);
  }
  return n;
}

size_t BpeModel::merge_by_queue(int32_t* ids, size_t n) const {
  struct Candidate {
    int32_t rank, id;
    size_t left;
    bool operator>(const Candidate& o) const { return rank != o.rank ? rank > o.rank : left > o.left; }
  };
  constexpr size_t kNone = SIZE_MAX;
  std::vector<size_t> previous(n), next(n);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](size_t left) {
    const Merge m = merges_.get(ids[left], ids[next[left]]);
    if (m.rank != kNoRank) queue.push({m.rank, m.id, left});
  };
  for (size_t i = 0; i < n; ++i) {
    previous[i] = i == 0 ? kNone : i - 1;
    next[i] = i + 1 == n ? kNone : i + 1;
  }
  for (size_t i = 0; i + 1 < n; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const size_t left = top.left;
    // Stale: one of the two was joined to another since.
    if (ids[left] < 0 || next[left] == kNone) continue;
    const size_t right = next[left];
    if (merges_.get(ids[left], ids[right]).rank != top.rank) continue;
    ids[left] = top.id;
    ids[right] = -1;
    next[left] = next[right];
    if (next[left] != kNone) {
      previous[next[left]] = left;
      offer(left);
    }
    if (previous[left] != kNone) offer(previous[left]);
  }
  return static_cast<size_t>(std::remove(ids, ids + n, -1) - ids);
}

void BpeModel::encode(std::string_view piece, std::vector<int32_t>& out) const {
  if (options_.ignore_merges) {
    if (const int32_t id = vocab_.find(piece); id >= 0) {
      out.push_back(id);
      return;
    }
  }
  const size_t start = out.size();
  symbols_of(piece, out);
  const size_t n = out.size() - start;
  int32_t* ids = out.data() + start;
  out.resize(start + (n <= kScanLimit ? merge_by_scan(ids, n) : merge_by_queue(ids, n)));
}

}  // namespace

std::unique_ptr<PieceModel> make_bpe(Vocab vocab, const Merges& merges, BpeOptions options) {
  return std::make_unique<BpeModel>(std::move(vocab), merges, std::move(options));
}

}  // namespace krait::text
