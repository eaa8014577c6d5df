#include "krait/text/json_fields.h"

#include <algorithm>

#include "krait/core/error.h"
#include "krait/text/utf8.h"

namespace krait::text {

JsonFields::JsonFields(Element object, std::string where) : where_(std::move(where)) {
  if (object.get(object_) != simdjson::SUCCESS) fail("is not a JSON object");
}

void JsonFields::fail(const std::string& why) const { fail_data("[tokenizer] " + where_ + ": " + why); }

std::optional<JsonFields::Element> JsonFields::find(std::string_view key) {
  read_.push_back(key);
  Element e;
  if (object_.at_key(key).get(e) != simdjson::SUCCESS || e.is_null()) return std::nullopt;
  return e;
}

JsonFields::Element JsonFields::need(std::string_view key) {
  const auto e = find(key);
  if (!e) fail("'" + std::string(key) + "' is missing");
  return *e;
}

std::string JsonFields::text(std::string_view key) {
  std::string_view s;
  if (need(key).get(s) != simdjson::SUCCESS) fail("'" + std::string(key) + "' is not a string");
  return std::string(s);
}

std::string JsonFields::text_or(std::string_view key, std::string_view otherwise) {
  return find(key) ? text(key) : std::string(otherwise);
}

std::string JsonFields::character(std::string_view key) {
  std::string s = text(key);
  if (s.empty() || utf8_length(s[0]) != s.size()) fail("'" + std::string(key) + "' is not one character");
  return s;
}

std::string JsonFields::base64(std::string_view key) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string digits = text(key), out;
  while (digits.ends_with('=')) digits.pop_back();
  uint32_t bits = 0;
  int count = 0;
  for (const char c : digits) {
    const size_t value = kDigits.find(c);
    if (value == std::string_view::npos) fail("'" + std::string(key) + "' is not base64");
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out.push_back(static_cast<char>(bits >> count & 0xFF));
  }
  return out;
}

bool JsonFields::flag_or(std::string_view key, bool otherwise) {
  const auto e = find(key);
  if (!e) return otherwise;
  bool b = false;
  if (e->get(b) != simdjson::SUCCESS) fail("'" + std::string(key) + "' is not true or false");
  return b;
}

int64_t JsonFields::integer(std::string_view key) {
  int64_t n = 0;
  if (need(key).get(n) != simdjson::SUCCESS) fail("'" + std::string(key) + "' is not an integer");
  return n;
}

int64_t JsonFields::integer_or(std::string_view key, int64_t otherwise) { return find(key) ? integer(key) : otherwise; }

std::vector<JsonFields::Element> JsonFields::list(std::string_view key) {
  const auto e = find(key);
  if (!e) return {};
  simdjson::dom::array a;
  if (e->get(a) != simdjson::SUCCESS) fail("'" + std::string(key) + "' is not a list");
  return {a.begin(), a.end()};
}

JsonFields JsonFields::object(std::string_view key) { return {need(key), where_ + "." + std::string(key)}; }

void JsonFields::ignore(std::initializer_list<std::string_view> keys) { read_.insert(read_.end(), keys); }

void JsonFields::finish() const {
  for (const auto& field : object_) {
    if (std::ranges::find(read_, field.key) == read_.end()) fail("'" + std::string(field.key) + "' is not known");
  }
}

}  // namespace krait::text
