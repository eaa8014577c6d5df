#include "krait/text/pre_tokenizer.h"

#include <algorithm>

#include "krait/text/byte_chars.h"
#include "krait/text/unicode.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

struct Part {
  size_t begin, end;
  bool match;
};

void emit(std::string_view text, bool first, size_t begin, size_t end, PieceSink& out) {
  if (begin < end) out.piece(text.substr(begin, end - begin), first && begin == 0);
}

// Matches and what lies between them, as alternating parts that cover the text.
std::vector<Part> parts_of(size_t size, const std::vector<Match>& matches, bool invert) {
  std::vector<Part> parts;
  size_t done = 0;
  for (const Match& m : matches) {
    if (done < m.begin) parts.push_back({done, m.begin, invert});
    parts.push_back({m.begin, m.end, !invert});
    done = m.end;
  }
  if (done < size) parts.push_back({done, size, invert});
  return parts;
}

// Joins the parts of one direction: a match goes to its neighbour unless that side was a match too.
void merge_matches(std::vector<Part>& parts, bool with_next) {
  if (with_next) std::ranges::reverse(parts);
  std::vector<Part> merged;
  bool after_match = false;
  for (const Part& p : parts) {
    if (p.match && !after_match && !merged.empty()) {
      merged.back().begin = std::min(merged.back().begin, p.begin);
      merged.back().end = std::max(merged.back().end, p.end);
    } else {
      merged.push_back(p);
    }
    after_match = p.match;
  }
  if (with_next) std::ranges::reverse(merged);
  parts = std::move(merged);
}

void merge_runs(std::vector<Part>& parts) {
  std::vector<Part> merged;
  for (const Part& p : parts) {
    if (!merged.empty() && merged.back().match == p.match) {
      merged.back().end = p.end;
    } else {
      merged.push_back(p);
    }
  }
  parts = std::move(merged);
}

void split_at(std::string_view text, bool first, const std::vector<Match>& matches, SplitBehavior behavior, bool invert,
              PieceSink& out) {
  std::vector<Part> parts = parts_of(text.size(), matches, invert);
  switch (behavior) {
    case SplitBehavior::kRemoved:
      std::erase_if(parts, [](const Part& p) { return p.match; });
      break;
    case SplitBehavior::kIsolated:
      break;
    case SplitBehavior::kContiguous:
      merge_runs(parts);
      break;
    case SplitBehavior::kMergedWithPrevious:
      merge_matches(parts, false);
      break;
    case SplitBehavior::kMergedWithNext:
      merge_matches(parts, true);
      break;
  }
  for (const Part& p : parts) emit(text, first, p.begin, p.end, out);
}

class ByPieces final : public PreTokenizer {
 public:
  explicit ByPieces(PieceEnd end) : end_(end) {}
  void split(std::string_view text, bool first, PieceSink& out) const override {
    for (size_t i = 0; i < text.size();) {
      const size_t end = end_(text, i);
      emit(text, first, i, end, out);
      i = end;
    }
  }

 private:
  PieceEnd end_;
};

class ByRegex final : public PreTokenizer {
 public:
  ByRegex(const std::string& regex, SplitBehavior behavior, bool invert)
      : regex_(regex), behavior_(behavior), invert_(invert) {}
  void split(std::string_view text, bool first, PieceSink& out) const override {
    std::vector<Match> matches;
    regex_.find_all(text, matches);
    split_at(text, first, matches, behavior_, invert_, out);
  }

 private:
  Regex regex_;
  SplitBehavior behavior_;
  bool invert_;
};

class ByString final : public PreTokenizer {
 public:
  ByString(std::string literal, SplitBehavior behavior, bool invert)
      : literal_(std::move(literal)), behavior_(behavior), invert_(invert) {}
  void split(std::string_view text, bool first, PieceSink& out) const override {
    std::vector<Match> matches;
    for (size_t i = text.find(literal_); i != std::string_view::npos; i = text.find(literal_, i + literal_.size())) {
      matches.push_back({i, i + literal_.size()});
    }
    split_at(text, first, matches, behavior_, invert_, out);
  }

 private:
  std::string literal_;
  SplitBehavior behavior_;
  bool invert_;
};

class ByCharacter final : public PreTokenizer {
 public:
  ByCharacter(bool (*wanted)(char32_t), SplitBehavior behavior) : wanted_(wanted), behavior_(behavior) {}
  void split(std::string_view text, bool first, PieceSink& out) const override {
    std::vector<Match> matches;
    for (size_t i = 0; i < text.size();) {
      const Utf8Char c = decode_valid_utf8(text.data() + i);
      if (wanted_(c.code)) matches.push_back({i, i + c.bytes});
      i += c.bytes;
    }
    split_at(text, first, matches, behavior_, false, out);
  }

 private:
  bool (*wanted_)(char32_t);
  SplitBehavior behavior_;
};

class Words final : public PreTokenizer {
 public:
  void split(std::string_view text, bool first, PieceSink& out) const override {
    size_t begin = 0;
    CharClass run = kSpace;
    for (size_t i = 0; i < text.size();) {
      const Utf8Char c = decode_valid_utf8(text.data() + i);
      const CharClass bits = char_class(c.code);
      const CharClass kind = (bits & kWord) != 0 ? kWord : (bits & kSpace) != 0 ? kSpace : CharClass{0};
      if (kind != run) {
        if (run != kSpace) emit(text, first, begin, i, out);
        begin = i;
        run = kind;
      }
      i += c.bytes;
    }
    if (run != kSpace) emit(text, first, begin, text.size(), out);
  }
};

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, PieceEnd pattern) : add_prefix_space_(add_prefix_space), pattern_(pattern) {}
  void split(std::string_view text, bool first, PieceSink& out) const override {
    std::string prefixed, chars;
    if (add_prefix_space_ && !text.starts_with(' ')) {
      prefixed.append(" ").append(text);
      text = prefixed;
    }
    for (size_t i = 0; i < text.size();) {
      const size_t end = pattern_ != nullptr ? pattern_(text, i) : text.size();
      chars.clear();
      append_byte_chars(chars, text.substr(i, end - i));
      out.piece(chars, first && i == 0);
      i = end;
    }
  }

 private:
  bool add_prefix_space_;
  PieceEnd pattern_;
};

class Metaspace final : public PreTokenizer {
 public:
  Metaspace(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)), prepend_(prepend), split_(split) {}
  void split(std::string_view text, bool first, PieceSink& out) const override {
    std::string s;
    for (const char c : text) {
      if (c == ' ') {
        s += replacement_;
      } else {
        s += c;
      }
    }
    const bool wanted = prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && first);
    if (wanted && !s.starts_with(replacement_)) s.insert(0, replacement_);
    if (!split_) return emit(s, first, 0, s.size(), out);
    std::vector<Match> matches;
    for (size_t i = s.find(replacement_); i != std::string::npos; i = s.find(replacement_, i + replacement_.size())) {
      matches.push_back({i, i + replacement_.size()});
    }
    split_at(s, first, matches, SplitBehavior::kMergedWithNext, false, out);
  }

 private:
  std::string replacement_;
  Prepend prepend_;
  bool split_;
};

// One stage and what comes after it.
struct Link final : PieceSink {
  const PreTokenizer* stage = nullptr;
  PieceSink* next = nullptr;
  void piece(std::string_view text, bool first) override { stage->split(text, first, *next); }
};

}  // namespace

std::unique_ptr<PreTokenizer> split_by_pieces(PieceEnd end) { return std::make_unique<ByPieces>(end); }
std::unique_ptr<PreTokenizer> split_by_regex(const std::string& regex, SplitBehavior behavior, bool invert) {
  return std::make_unique<ByRegex>(regex, behavior, invert);
}
std::unique_ptr<PreTokenizer> split_by_string(std::string literal, SplitBehavior behavior, bool invert) {
  return std::make_unique<ByString>(std::move(literal), behavior, invert);
}
std::unique_ptr<PreTokenizer> split_by_character(bool (*matches)(char32_t), SplitBehavior behavior) {
  return std::make_unique<ByCharacter>(matches, behavior);
}
std::unique_ptr<PreTokenizer> split_words() { return std::make_unique<Words>(); }
std::unique_ptr<PreTokenizer> byte_level(bool add_prefix_space, PieceEnd pattern) {
  return std::make_unique<ByteLevel>(add_prefix_space, pattern);
}
std::unique_ptr<PreTokenizer> metaspace(std::string replacement, Prepend prepend, bool split) {
  return std::make_unique<Metaspace>(std::move(replacement), prepend, split);
}

void pre_tokenize(const std::vector<std::unique_ptr<PreTokenizer>>& stages, std::string_view text, bool first,
                  PieceSink& out) {
  if (text.empty()) return;
  if (stages.empty()) return out.piece(text, first);
  std::vector<Link> links(stages.size());
  for (size_t i = 0; i < stages.size(); ++i) {
    links[i].stage = stages[i].get();
    links[i].next = i + 1 < stages.size() ? static_cast<PieceSink*>(&links[i + 1]) : &out;
  }
  links.front().piece(text, first);
}

}  // namespace krait::text
