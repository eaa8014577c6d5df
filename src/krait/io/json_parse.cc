// Json::parse: simdjson does the work; the numbers it refuses although Python writes them are rewritten before.
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <unordered_set>

#include "krait/core/error.h"
#include "krait/io/json.h"

namespace krait::io {
namespace {

constexpr size_t kMaxDepth = 128;

// The text with every bare Infinity, -Infinity and NaN replaced by "" and integers of 19 digits or more made into
// doubles (transformers writes "model_max_length": 1000000000000000019884624838656). A replaced number is known again
// by its ordinal among the strings of the document, keys included.
struct Prepared {
  std::string text;  // followed by simdjson's padding
  size_t length = 0;
  std::vector<std::pair<size_t, double>> non_finite;  // ordinal, value
};

bool is_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '+' || c == '.';
}

bool is_long_integer(std::string_view word) {
  const std::string_view digits = word.substr(word.starts_with('-') ? 1 : 0);
  return digits.size() >= 19 && std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; });
}

bool fits_int64(std::string_view word) {
  int64_t v = 0;
  return std::from_chars(word.data(), word.data() + word.size(), v).ec == std::errc();
}

size_t end_of_string(std::string_view text, size_t quote) {
  size_t i = quote + 1;
  while (i < text.size() && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
  return std::min(i + 1, text.size());
}

Prepared prepare(std::string_view text) {
  using Limits = std::numeric_limits<double>;
  constexpr std::array<std::pair<std::string_view, double>, 3> kNames{
      {{"Infinity", Limits::infinity()}, {"-Infinity", -Limits::infinity()}, {"NaN", Limits::quiet_NaN()}}};
  Prepared p;
  p.text.reserve(text.size() + simdjson::SIMDJSON_PADDING);
  size_t strings = 0, copied = 0;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '"') {
      ++strings;
      i = end_of_string(text, i);
    } else if (is_word(text[i])) {
      const size_t begin = i;
      while (i < text.size() && is_word(text[i])) ++i;
      const std::string_view word = text.substr(begin, i - begin);
      const auto name = std::ranges::find(kNames, word, &std::pair<std::string_view, double>::first);
      if (name != kNames.end()) {
        p.text.append(text.substr(copied, begin - copied)).append("\"\"");
        copied = i;
        p.non_finite.emplace_back(strings++, name->second);
      } else if (is_long_integer(word) && !fits_int64(word)) {
        p.text.append(text.substr(copied, i - copied)).append(".0");
        copied = i;
      }
    } else {
      ++i;
    }
  }
  p.text.append(text.substr(copied));
  p.length = p.text.size();
  p.text.append(simdjson::SIMDJSON_PADDING, ' ');
  return p;
}

// Turns simdjson's tree into ours, in document order.
class Builder {
 public:
  Builder(const Prepared& prepared, const std::string& what)
      : next_(prepared.non_finite.begin()), end_(prepared.non_finite.end()), what_(what) {}

  Json build(simdjson::dom::element e) {
    using Type = simdjson::dom::element_type;
    switch (e.type()) {
      case Type::ARRAY:
        return build_array(e.get_array().value_unsafe());
      case Type::OBJECT:
        return build_object(e.get_object().value_unsafe());
      case Type::INT64:
        return Json(e.get_int64().value_unsafe());
      case Type::UINT64:  // only what does not fit int64
        return Json(static_cast<double>(e.get_uint64().value_unsafe()));
      case Type::DOUBLE:
        return Json(e.get_double().value_unsafe());
      case Type::STRING:
        if (const double* v = take_non_finite()) return Json(*v);
        return Json(std::string(e.get_string().value_unsafe()));
      case Type::BOOL:
        return Json(e.get_bool().value_unsafe());
      case Type::NULL_VALUE:
        break;
    }
    return Json();
  }

 private:
  Json build_array(simdjson::dom::array array) {
    Json j = Json::array();
    for (const simdjson::dom::element e : array) j.push(build(e));
    return j;
  }

  Json build_object(simdjson::dom::object object) {
    Json::Object items;
    std::unordered_set<std::string_view> keys;
    for (const simdjson::dom::key_value_pair item : object) {
      if (take_non_finite()) fail_data(fmt::format("[json] {}: a number stands where a key should", what_));
      if (!keys.insert(item.key).second)
        fail_data(fmt::format("[json] {}: key {} occurs twice", what_, quote_name(item.key)));
      items.emplace_back(std::string(item.key), build(item.value));
    }
    return Json(std::move(items));
  }

  // Counts one string of the document; its value if it stands for a number.
  const double* take_non_finite() {
    const size_t ordinal = strings_++;
    if (next_ == end_ || next_->first != ordinal) return nullptr;
    return &(next_++)->second;
  }

  std::vector<std::pair<size_t, double>>::const_iterator next_, end_;
  const std::string& what_;
  size_t strings_ = 0;
};

std::string reason(simdjson::error_code code, size_t bytes) {
  switch (code) {
    case simdjson::EMPTY:
      return "it is empty";
    case simdjson::DEPTH_ERROR:
      return fmt::format("nested deeper than {} levels", kMaxDepth);
    case simdjson::CAPACITY:
      return fmt::format("{} bytes are too many", bytes);
    case simdjson::UTF8_ERROR:
      return "it is not valid UTF-8";
    case simdjson::UNCLOSED_STRING:
      return "a string is not closed; truncated?";
    case simdjson::UNESCAPED_CHARS:
      return "a string holds a control character";
    case simdjson::STRING_ERROR:
      return "a string holds a malformed escape";
    case simdjson::NUMBER_ERROR:
      return "a number is malformed or out of range";
    case simdjson::T_ATOM_ERROR:
    case simdjson::F_ATOM_ERROR:
    case simdjson::N_ATOM_ERROR:
      return "a word that is neither true, false nor null";
    default:
      return "malformed JSON: a comma, bracket, key or value is missing or too many; truncated?";
  }
}

}  // namespace

Json Json::parse(std::string_view text, const std::string& what) {
  const Prepared p = prepare(text);
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  simdjson::error_code code = parser.allocate(std::max<size_t>(p.length, 64), kMaxDepth);
  if (code == simdjson::SUCCESS) code = parser.parse(p.text.data(), p.length, false).get(root);
  if (code == simdjson::MEMALLOC) throw Error(ErrorCode::kFailed, fmt::format("[json] {}: out of memory", what));
  if (code != simdjson::SUCCESS) fail_data(fmt::format("[json] {}: {}", what, reason(code, text.size())));
  return Builder(p, what).build(root);
}

}  // namespace krait::io
