#include "krait/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "krait/core/error.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

constexpr std::string_view kWordSet = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

[[noreturn]] void refuse(const std::string& pattern, const std::string& why) {
  fail_data("[tokenizer] regular expression '" + pattern + "': " + why);
}

// \s, \S, \w and \W written as properties, since PCRE2 means slightly other sets by them; constructs that it reads
// differently altogether are refused.
std::string translate(const std::string& p) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < p.size(); ++i) {
    const char c = p[i];
    if (c == '\\') {
      if (++i == p.size()) refuse(p, "ends in a backslash");
      const char e = p[i];
      if (e == 's') {
        out += R"(\p{White_Space})";
      } else if (e == 'S') {
        out += R"(\P{White_Space})";
      } else if (e == 'w') {
        out += in_class ? std::string(kWordSet) : "[" + std::string(kWordSet) + "]";
      } else if (e == 'W' && !in_class) {
        out += "[^" + std::string(kWordSet) + "]";
      } else if (e == 'W' || e == 'b' || e == 'B' || e == 'h' || e == 'H' || e == 'G' || e == 'K' || e == 'R' ||
                 e == 'X') {
        refuse(p, std::string("\\") + e + (in_class ? " inside [ ]" : "") + " is not supported");
      } else {
        out += c;
        out += e;
        if ((e == 'p' || e == 'P' || e == 'x') && i + 1 < p.size() && p[i + 1] == '{') {
          const size_t close = p.find('}', i);
          if (close == std::string::npos) refuse(p, "a brace is not closed");
          out += p.substr(i + 1, close - i);
          i = close;
        }
      }
      continue;
    }
    if (in_class) {
      if (c == '[') refuse(p, "a set inside a set is not supported");
      if (c == '&' && i + 1 < p.size() && p[i + 1] == '&') refuse(p, "an intersection of sets is not supported");
      in_class = c != ']';
    } else if (c == '[') {
      in_class = true;
      out += c;
      if (i + 1 < p.size() && p[i + 1] == '^') out += p[++i];
      if (i + 1 < p.size() && p[i + 1] == ']') refuse(p, "an empty set is not supported");
      continue;
    } else if (c == '}' && i + 1 < p.size() && p[i + 1] == '+') {
      refuse(p, "{n,m}+ is not supported");  // possessive for PCRE2, a repetition of the repetition for Oniguruma
    }
    out += c;
  }
  return out;
}

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
  const std::string p = translate(pattern);
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
