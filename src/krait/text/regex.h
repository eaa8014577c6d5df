// Regex: a regular expression of a tokenizer.json (Oniguruma's syntax and meaning), run by PCRE2 with JIT.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace krait::text {

struct Match {
  size_t begin, end;
};

class Regex {
 public:
  // Throws kBadData if the expression is malformed or means something else to PCRE2.
  explicit Regex(const std::string& pattern);
  ~Regex();
  Regex(Regex&&) noexcept;

  // All matches from left to right, not overlapping; an empty one does not follow directly on another. `text` is
  // well-formed UTF-8. Thread-safe.
  void find_all(std::string_view text, std::vector<Match>& out) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace krait::text
