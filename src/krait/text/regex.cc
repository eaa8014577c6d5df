#include "krait/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "krait/core/error.h"
#include "krait/text/unicode_tables.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

[[noreturn]] void refuse(const std::string& pattern, const std::string& why) {
  fail_data("[tokenizer] regular expression '" + pattern + "': " + why);
}

// Of the escapes and properties that have members newer than PCRE2's tables: what they are called and mean.
struct Property {
  std::string_view name, set;
  CharClass bits;
};
constexpr Property kProperties[] = {{"w", R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})", kWord},
                                    {"d", R"(\p{Nd})", kDecimal},
                                    {"L", R"(\p{L})", kLetter},
                                    {"Lu", R"(\p{Lu})", kUpper},
                                    {"Ll", R"(\p{Ll})", kLower},
                                    {"Lo", R"(\p{Lo})", kOtherLetter},
                                    {"M", R"(\p{M})", kMark},
                                    {"N", R"(\p{N})", kNumber},
                                    {"Nd", R"(\p{Nd})", kDecimal},
                                    {"P", R"(\p{P})", kPunctuation},
                                    {"S", R"(\p{S})", kSymbol}};

// Members for the inside of a set.
std::string members_of(const Property& property) {
  std::string out(property.set);
  for (const ClassRange& r : kAssignedSince15) {
    if ((r.bits & property.bits) == 0) continue;
    char range[32];
    std::snprintf(range, sizeof range, "\\x{%X}-\\x{%X}", static_cast<unsigned>(r.first),
                  static_cast<unsigned>(r.last));
    out += range;
  }
  return out;
}

// Rewrites an expression so that PCRE2 means what Oniguruma does: \s, \w, \d and properties by their sets; constructs
// that it reads differently altogether are refused.
class Translator {
 public:
  explicit Translator(const std::string& pattern) : p_(pattern) {}

  std::string run() {
    for (; i_ < p_.size(); ++i_) {
      if (p_[i_] == '\\') {
        escape();
      } else if (in_set_) {
        set_member();
      } else {
        outside();
      }
    }
    return std::move(out_);
  }

 private:
  void escape() {
    if (++i_ == p_.size()) refuse(p_, "ends in a backslash");
    const char e = p_[i_];
    if (e == 's' || e == 'S') {
      out_ += e == 's' ? R"(\p{White_Space})" : R"(\P{White_Space})";
    } else if (e == 'w' || e == 'W' || e == 'd' || e == 'D') {
      const bool negated = e == 'W' || e == 'D';
      put({&e, 1}, negated ? (e == 'W' ? "w" : "d") : std::string_view(&e, 1), negated);
    } else if (std::string_view("bBhHGKRX").find(e) != std::string_view::npos) {
      refuse(p_, std::string("\\") + e + " is not supported");
    } else if ((e == 'p' || e == 'P' || e == 'x') && i_ + 1 < p_.size() && p_[i_ + 1] == '{') {
      const size_t close = p_.find('}', i_);
      if (close == std::string::npos) refuse(p_, "a brace is not closed");
      const std::string whole = p_.substr(i_, close + 1 - i_);
      std::string_view name = std::string_view(whole).substr(2, whole.size() - 3);
      const bool inverse = name.starts_with('^');
      if (inverse) name.remove_prefix(1);
      i_ = close;
      put(whole, e == 'x' ? std::string_view() : name, inverse != (e == 'P'));
    } else {
      out_ += '\\';
      out_ += e;
    }
  }

  // The set of a property, or the escape `written` itself if that needs no change.
  void put(std::string_view written, std::string_view name, bool negated) {
    const Property* property = std::ranges::find(kProperties, name, &Property::name);
    if (property == std::end(kProperties)) {
      out_.append("\\").append(written);
    } else if (!in_set_) {
      out_ += (negated ? "[^" : "[") + members_of(*property) + "]";
    } else if (!negated) {
      out_ += members_of(*property);
    } else {
      refuse(p_, "\\" + std::string(written) + " inside [ ] is not supported");
    }
  }

  void set_member() {
    const char c = p_[i_];
    if (c == '[') refuse(p_, "a set inside a set is not supported");
    if (c == '&' && i_ + 1 < p_.size() && p_[i_ + 1] == '&') refuse(p_, "an intersection of sets is not supported");
    in_set_ = c != ']';
    out_ += c;
  }

  void outside() {
    const char c = p_[i_];
    out_ += c;
    if (c == '[') {
      in_set_ = true;
      if (i_ + 1 < p_.size() && p_[i_ + 1] == '^') out_ += p_[++i_];
      if (i_ + 1 < p_.size() && p_[i_ + 1] == ']') refuse(p_, "an empty set is not supported");
    } else if (c == '}' && i_ + 1 < p_.size() && p_[i_ + 1] == '+') {
      refuse(p_, "{n,m}+ is not supported");  // possessive for PCRE2, a repetition of the repetition for Oniguruma
    }
  }

  const std::string& p_;
  std::string out_;
  size_t i_ = 0;
  bool in_set_ = false;
};

std::string message_of(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// A stack for the compiled code, one a thread.
struct MatchContext {
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(size_t{32} << 10, size_t{64} << 20, nullptr);
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  MatchContext() { pcre2_jit_stack_assign(context, nullptr, stack); }
  ~MatchContext() {
    pcre2_match_data_free(data);
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
  }
  MatchContext(const MatchContext&) = delete;
  MatchContext& operator=(const MatchContext&) = delete;
};

}  // namespace

struct Regex::Compiled {
  std::string pattern;
  pcre2_code* code = nullptr;
  ~Compiled() { pcre2_code_free(code); }
};

Regex::Regex(const std::string& pattern) : compiled_(std::make_unique<Compiled>()) {
  compiled_->pattern = pattern;
  const std::string p = Translator(pattern).run();
  int error = 0;
  PCRE2_SIZE at = 0;
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  compiled_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(p.data()), p.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &at, context.get());
  if (compiled_->code == nullptr) refuse(pattern, message_of(error));
  pcre2_jit_compile(compiled_->code, PCRE2_JIT_COMPLETE);  // where JIT is missing, pcre2_match interprets
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

void Regex::find_all(std::string_view text, std::vector<Match>& out) const {
  thread_local MatchContext context;
  size_t from = 0;
  size_t last_end = SIZE_MAX;
  while (from <= text.size()) {
    const int rc = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                               PCRE2_NO_UTF_CHECK, context.data, context.context);
    if (rc == PCRE2_ERROR_NOMATCH) return;
    if (rc < 0) refuse(compiled_->pattern, message_of(rc));
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(context.data);
    const Match m{span[0], span[1]};
    if (m.begin == m.end && m.end == last_end) {
      from = m.end < text.size() ? m.end + utf8_length(text[m.end]) : m.end + 1;
      continue;
    }
    if (m.begin > m.end) refuse(compiled_->pattern, "a match ends before it begins (\\K)");
    out.push_back(m);
    from = last_end = m.end;
  }
}

}  // namespace krait::text
