#include "krait/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "krait/text/unicode_tables.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

// The range of a sorted table that holds `c`; null: none.
template <typename Range, size_t N>
const Range* find_range(const Range (&table)[N], char32_t c) {
  const Range* r = std::ranges::lower_bound(table, c, {}, &Range::last);
  return r != std::end(table) && c >= r->first ? r : nullptr;
}

CharClass category_class(utf8proc_category_t category) {
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
      return kUpper | kWord;
    case UTF8PROC_CATEGORY_LL:
      return kLower | kWord;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kOtherLetter | kWord;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kMark | kWord;
    case UTF8PROC_CATEGORY_ND:
      return kDecimal | kWord;
    case UTF8PROC_CATEGORY_NL:
      return kOtherNumber | kWord;
    case UTF8PROC_CATEGORY_NO:
      return kOtherNumber;
    case UTF8PROC_CATEGORY_PC:
      return kPunctuation | kWord;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return kPunctuation;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
      return kSymbol;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return kSpace;
    default:
      return 0;
  }
}

utf8proc_int32_t as_utf8proc(char32_t c) { return static_cast<utf8proc_int32_t>(c); }

// Normalization neither changes it nor anything across it.
bool is_barrier(char32_t c) { return c >= 0x7FD && find_range(kNormalizationBarriers, c) != nullptr; }

// In NFC such a character stays, and nothing before it can combine with it or what follows.
bool is_nfc_boundary(char32_t c) {
  if (c < 0x300) return true;
  if (c >= 0x1160 && c <= 0x11FF) return false;  // vowels and finals of Hangul join the syllable before
  const utf8proc_property_t* p = utf8proc_get_property(as_utf8proc(c));
  if (p->combining_class != 0 || (p->decomp_seqindex != UINT16_MAX && p->decomp_type == 0)) return is_barrier(c);
  return !(category_class(static_cast<utf8proc_category_t>(p->category)) & kMark) || is_barrier(c);
}

class Normalizer {
 public:
  Normalizer(NormalForm form, std::string& out) : out_(out) {
    composed_ = form == NormalForm::kNfc || form == NormalForm::kNfkc;
    const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
    options_ = UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0) | UTF8PROC_DECOMPOSE;
  }

  void add(char32_t c) {
    if (is_barrier(c)) {
      flush();
      append_utf8(out_, c);
      return;
    }
    utf8proc_int32_t parts[32];  // U+FDFA has the longest decomposition: 18
    int boundary = 0;
    const auto n =
        utf8proc_decompose_char(as_utf8proc(c), parts, 32, static_cast<utf8proc_option_t>(options_), &boundary);
    codes_.insert(codes_.end(), parts, parts + n);
  }

  void flush() {
    order_marks();
    auto n = static_cast<utf8proc_ssize_t>(codes_.size());
    if (composed_ && n > 0) {
      n = utf8proc_normalize_utf32(codes_.data(), n,
                                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    }
    for (utf8proc_ssize_t i = 0; i < n; ++i) append_utf8(out_, static_cast<char32_t>(codes_[static_cast<size_t>(i)]));
    codes_.clear();
  }

 private:
  static int combining_class(utf8proc_int32_t c) {
    return c < 0x300 ? 0 : static_cast<int>(utf8proc_get_property(c)->combining_class);
  }

  // Canonical ordering; a stable sort, since a text may have a million marks in a row.
  void order_marks() {
    for (size_t i = 0; i < codes_.size();) {
      if (combining_class(codes_[i]) == 0) {
        ++i;
        continue;
      }
      size_t end = i;
      while (end < codes_.size() && combining_class(codes_[end]) != 0) ++end;
      std::stable_sort(codes_.begin() + static_cast<ptrdiff_t>(i), codes_.begin() + static_cast<ptrdiff_t>(end),
                       [](auto a, auto b) { return combining_class(a) < combining_class(b); });
      i = end;
    }
  }

  std::string& out_;
  int options_ = 0;
  bool composed_ = false;
  std::vector<utf8proc_int32_t> codes_;
};

size_t ascii_prefix(std::string_view s) {
  const auto at = std::ranges::find_if(s, [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
  return static_cast<size_t>(at - s.begin());
}

// NFC of English prose touches only the few characters around a mark.
std::string normalize_nfc(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  Normalizer n(NormalForm::kNfc, out);
  size_t copied = 0, last_boundary = 0;
  for (size_t i = 0; i < s.size();) {
    const Utf8Char c = decode_valid_utf8(s.data() + i);
    if (is_nfc_boundary(c.code)) {
      last_boundary = i;
      i += c.bytes;
      continue;
    }
    out.append(s.substr(copied, last_boundary - copied));
    for (i = last_boundary; i < s.size();) {
      const Utf8Char part = decode_valid_utf8(s.data() + i);
      if (i > last_boundary && is_nfc_boundary(part.code)) break;
      n.add(part.code);
      i += part.bytes;
    }
    n.flush();
    copied = last_boundary = i;
  }
  out.append(s.substr(copied));
  return out;
}

}  // namespace

CharClass wide_char_class(char32_t c) {
  const auto category = utf8proc_category(as_utf8proc(c));
  if (category == UTF8PROC_CATEGORY_CN) {
    const ClassRange* r = find_range(kAssignedSince15, c);
    return r == nullptr ? CharClass{0} : r->bits;
  }
  if (c == 0x85) return kSpace;  // NEL: a control, and White_Space
  const CharClass bits = category_class(category);
  return bits == kSymbol || bits == 0 ? bits | (find_range(kOtherWord, c) != nullptr ? kWord : 0) : bits;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return (kAsciiClass[c] & (kPunctuation | kSymbol)) != 0;
  if (c == 0x166D || c == 0x111C9) return true;  // were punctuation then
  return (wide_char_class(c) & kPunctuation) != 0 && find_range(kPunctuationSince9, c) == nullptr;
}

bool is_surely_nfc(std::string_view s) {
  for (size_t i = ascii_prefix(s); i < s.size();) {
    const Utf8Char c = decode_valid_utf8(s.data() + i);
    if (!is_nfc_boundary(c.code)) return false;
    i += c.bytes;
  }
  return true;
}

std::string normalize(std::string_view s, NormalForm form) {
  if (form == NormalForm::kNfc) return normalize_nfc(s);
  const size_t ascii = ascii_prefix(s);
  if (ascii == s.size()) return std::string(s);
  // The last ASCII character may combine with what follows.
  const size_t copied = ascii == 0 ? 0 : ascii - 1;
  std::string out(s.substr(0, copied));
  Normalizer n(form, out);
  for (size_t i = copied; i < s.size();) {
    const Utf8Char c = decode_valid_utf8(s.data() + i);
    n.add(c.code);
    i += c.bytes;
  }
  n.flush();
  return out;
}

std::string to_lower(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t i = 0; i < s.size();) {
    const Utf8Char c = decode_valid_utf8(s.data() + i);
    if (c.code == 0x130) {  // the one character whose lower case is two
      out += "i\xCC\x87";
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(as_utf8proc(c.code))));
    }
    i += c.bytes;
  }
  return out;
}

}  // namespace krait::text
