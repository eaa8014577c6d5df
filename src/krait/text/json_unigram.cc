// What tokenizer.json needs of SentencePiece: its unigram model and its character rules, as the tokenizers package has
// them.
#include <fmt/format.h>
#include <utf8proc.h>

#include <array>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "krait/core/error.h"
#include "krait/text/charsmap.h"
#include "krait/text/factories.h"
#include "krait/text/unigram.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

class JsonUnigram final : public PieceModel {
 public:
  JsonUnigram(std::vector<std::pair<std::string, double>> vocab, std::optional<int32_t> unk, bool byte_fallback)
      : vocab_(std::move(vocab)), unk_(unk) {
    if (vocab_.empty() || vocab_.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
      fail_data(fmt::format("[unigram] a vocabulary of {} pieces", vocab_.size()));
    }
    if (unk_ && (*unk_ < 0 || static_cast<size_t>(*unk_) >= vocab_.size())) {
      fail_data(fmt::format("[unigram] unk_id {} in a vocabulary of {}", *unk_, vocab_.size()));
    }
    std::vector<std::pair<std::string_view, int32_t>> entries;
    double worst = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < vocab_.size(); ++i) {
      const auto& [text, score] = vocab_[i];
      if (!std::isfinite(score)) fail_data(fmt::format("[unigram] piece {} has score {}", i, score));
      worst = std::min(worst, score);
      if (text.empty()) continue;
      // The last of equal pieces counts.
      if (!ids_.insert_or_assign(text, static_cast<int32_t>(i)).second) continue;
      entries.emplace_back(text, 0);
    }
    for (auto& [text, id] : entries) id = ids_.at(text);
    trie_ = PieceTrie(std::move(entries));
    unk_score_ = worst - kUnigramUnkPenalty;
    if (byte_fallback) find_bytes();
  }
  JsonUnigram(const JsonUnigram&) = delete;  // the index views the vocabulary
  JsonUnigram& operator=(const JsonUnigram&) = delete;

  std::string name() const override { return "unigram"; }
  int64_t size() const override { return static_cast<int64_t>(vocab_.size()); }
  std::string_view token(int32_t id) const override {
    return id >= 0 && id < size() ? std::string_view(vocab_[static_cast<size_t>(id)].first) : std::string_view();
  }
  std::optional<int32_t> id(std::string_view token) const override {
    const auto it = ids_.find(token);
    return it == ids_.end() ? std::nullopt : std::optional(it->second);
  }

  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    const auto score = [&](int32_t id, size_t) { return vocab_[static_cast<size_t>(id)].second; };
    const std::vector<Segment> path = most_probable_segments(piece, trie_, score, unk_score_, kUnknown);
    const auto unknown = [&](const Segment& s) { return s.id == kUnknown || s.id == unk_; };
    for (size_t i = 0; i < path.size(); ++i) {
      if (!unknown(path[i])) {
        out.push_back(path[i].id);
        continue;
      }
      const size_t begin = path[i].begin;  // neighbouring unknown characters are one
      while (i + 1 < path.size() && unknown(path[i + 1])) ++i;
      encode_unknown(piece.substr(begin, path[i].end - begin), out);
    }
  }

 private:
  static constexpr int32_t kUnknown = -1;

  void find_bytes() {
    for (size_t b = 0; b < 256; ++b) {
      const auto found = id(fmt::format("<0x{:02X}>", b));
      byte_ids_[b] = found.value_or(kUnknown);
    }
  }

  void encode_unknown(std::string_view run, std::vector<int32_t>& out) const {
    // A run of unknown characters may be a piece as a whole (never one character alone).
    if (const auto whole = id(run)) return out.push_back(*whole);
    const size_t before = out.size();
    for (const char c : run) {
      const int32_t byte = byte_ids_[static_cast<uint8_t>(c)];
      if (byte == kUnknown) break;
      out.push_back(byte);
    }
    if (out.size() == before + run.size()) return;
    out.resize(before);
    if (!unk_) fail_data(fmt::format("[unigram] '{}' is not in the vocabulary, which has no unknown piece", run));
    out.push_back(*unk_);
  }

  std::vector<std::pair<std::string, double>> vocab_;
  std::unordered_map<std::string_view, int32_t> ids_;
  PieceTrie trie_;
  std::optional<int32_t> unk_;
  double unk_score_ = 0;
  std::array<int32_t, 256> byte_ids_ = [] {
    std::array<int32_t, 256> none{};
    none.fill(kUnknown);
    return none;
  }();
};

// Bytes of the grapheme cluster at the front of `text`, which is valid UTF-8 and not empty.
size_t grapheme_length(std::string_view text) {
  utf8proc_int32_t state = 0;
  Utf8Char c = decode_utf8(text);
  size_t n = c.bytes;
  while (n < text.size()) {
    const Utf8Char next = decode_utf8(text.substr(n));
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(c.code),
                                         static_cast<utf8proc_int32_t>(next.code), &state)) {
      break;
    }
    n += next.bytes;
    c = next;
  }
  return n;
}

// The package asks for a rule a grapheme cluster at a time, if that is shorter than 6 bytes, and takes the rule of the
// shortest prefix for the whole cluster; otherwise a character at a time.
std::string apply_by_grapheme(const Charsmap& rules, std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    std::string_view cluster = text.substr(0, grapheme_length(text));
    text.remove_prefix(cluster.size());
    if (cluster.size() < 6) {
      if (const auto m = rules.shortest(cluster); m.length > 0) {
        out += m.replacement;
        continue;
      }
    }
    while (!cluster.empty()) {
      const std::string_view character = cluster.substr(0, utf8_length(cluster[0]));
      cluster.remove_prefix(character.size());
      const auto m = rules.shortest(character);
      out += m.length > 0 ? m.replacement : character;
    }
  }
  return out;
}

}  // namespace

std::unique_ptr<PieceModel> make_json_unigram(std::vector<std::pair<std::string, double>> vocab,
                                              std::optional<int32_t> unk_id, bool byte_fallback) {
  return std::make_unique<JsonUnigram>(std::move(vocab), unk_id, byte_fallback);
}

std::function<std::string(std::string_view)> make_charsmap_normalizer(std::string charsmap) {
  return [rules = Charsmap(charsmap)](std::string_view text) { return apply_by_grapheme(rules, text); };
}

}  // namespace krait::text
