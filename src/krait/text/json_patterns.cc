#include "krait/text/json_patterns.h"

namespace krait::text {

JsonPattern read_pattern(JsonFields& fields) {
  JsonFields p = fields.object("pattern");
  JsonPattern out;
  if (p.find("String")) {
    out.text = p.text("String");
    if (out.text.empty()) p.fail("the pattern is empty");
  } else {
    out.is_regex = true;
    out.text = p.text("Regex");
  }
  p.finish();
  return out;
}

Replacer::Replacer(const JsonPattern& pattern, std::string content)
    : pattern_(pattern.text), content_(std::move(content)) {
  if (pattern.is_regex) pattern_.emplace<Regex>(pattern.text);
}

bool Replacer::apply(std::string_view in, std::string& out) const {
  std::vector<Match> matches;
  if (const auto* regex = std::get_if<Regex>(&pattern_)) {
    regex->find_all(in, matches);
  } else {
    const std::string& literal = std::get<std::string>(pattern_);
    for (size_t i = in.find(literal); i != std::string_view::npos; i = in.find(literal, i + literal.size())) {
      matches.push_back({i, i + literal.size()});
    }
  }
  if (matches.empty()) return false;
  size_t done = 0;
  for (const Match& m : matches) {
    out.append(in.substr(done, m.begin - done)).append(content_);
    done = m.end;
  }
  out.append(in.substr(done));
  return true;
}

}  // namespace krait::text
