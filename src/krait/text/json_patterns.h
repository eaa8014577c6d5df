// Patterns as normalizers, pre-tokenizers and decoders of a tokenizer.json write them: {"String": …} or {"Regex": …}.
#pragma once
#include <string>
#include <variant>
#include <vector>

#include "krait/text/json_fields.h"
#include "krait/text/regex.h"

namespace krait::text {

struct JsonPattern {
  bool is_regex = false;
  std::string text;
};
JsonPattern read_pattern(JsonFields& fields);  // field "pattern"

// Replaces every match of a pattern by `content`, as it stands.
class Replacer {
 public:
  Replacer(const JsonPattern& pattern, std::string content);
  bool apply(std::string_view in, std::string& out) const;  // false: nothing to replace, `out` is untouched

 private:
  std::variant<std::string, Regex> pattern_;
  std::string content_;
};

}  // namespace krait::text
