// JsonFields: a JSON object of which every key must be read or named as of no consequence.
#pragma once
#include <simdjson.h>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace krait::text {

class JsonFields {
 public:
  using Element = simdjson::dom::element;

  // `where` names the object in messages. Throws kBadData if it is not an object.
  JsonFields(Element object, std::string where);

  // The value of a key; null counts as absent (nullopt). Each throws kBadData if the type is another.
  std::optional<Element> find(std::string_view key);
  Element need(std::string_view key);
  std::string text(std::string_view key);
  std::string text_or(std::string_view key, std::string_view otherwise);
  std::string character(std::string_view key);  // a string of exactly one
  std::string base64(std::string_view key);     // its bytes
  bool flag_or(std::string_view key, bool otherwise);
  int64_t integer(std::string_view key);
  int64_t integer_or(std::string_view key, int64_t otherwise);
  std::vector<Element> list(std::string_view key);  // absent: empty
  JsonFields object(std::string_view key);

  void ignore(std::initializer_list<std::string_view> keys);  // keys that do not matter to us
  void finish() const;                                        // throws kBadData naming the keys that nobody read

  const std::string& where() const { return where_; }
  [[noreturn]] void fail(const std::string& why) const;  // kBadData "[tokenizer] <where>: <why>"

 private:
  simdjson::dom::object object_;
  std::string where_;
  std::vector<std::string_view> read_;
};

}  // namespace krait::text
