// Json: a small value tree for configurations and headers. Objects keep the order of their keys.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace krait::io {

class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;

  Json() = default;  // null
  explicit Json(bool v) : value_(v) {}
  explicit Json(int64_t v) : value_(v) {}
  explicit Json(double v) : value_(v) {}
  explicit Json(std::string v) : value_(std::move(v)) {}
  explicit Json(const char* v) : value_(std::string(v)) {}
  explicit Json(Object v) : value_(std::move(v)) {}  // its keys must differ
  static Json object();
  static Json array();

  // Parses a whole document; bare Infinity, -Infinity and NaN are accepted as numbers (older transformers write them).
  // `what` names the text in messages. Throws kBadData: malformed, nested too deep, duplicate keys.
  static Json parse(std::string_view text, const std::string& what);

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_number() const { return std::holds_alternative<int64_t>(value_) || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  // Each throws kBadData naming what was found instead. as_integer() accepts 2.0; as_double() accepts
  // {"__float__": "Infinity"}, the form of transformers 5.
  bool as_bool() const;
  int64_t as_integer() const;
  double as_double() const;
  const std::string& as_string() const;
  const Object& items() const;
  size_t size() const;  // of an array or object; 0 for anything else

  const Json& at(size_t i) const;                // throws kBadData if absent
  const Json& at(std::string_view key) const;    // throws kBadData if absent
  const Json* find(std::string_view key) const;  // null if absent or not an object

  // The value of `key`, or `otherwise` if it is absent or null; throws kBadData naming the key if it has another type.
  bool boolean_or(std::string_view key, bool otherwise) const;
  int64_t integer_or(std::string_view key, int64_t otherwise) const;
  double number_or(std::string_view key, double otherwise) const;
  std::string string_or(std::string_view key, const std::string& otherwise) const;

  void set(std::string key, Json v);  // objects
  void push(Json v);                  // arrays

  // Text; `indent` 0: one line. Infinity and NaN in the form of transformers 5.
  std::string dump(int indent = 0) const;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

// A name from a file, for messages: quoted and escaped as in JSON, cut after 200 bytes.
std::string quote_name(std::string_view);

}  // namespace krait::io
