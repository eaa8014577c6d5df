// Filters, tests and methods of the template language, by name.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "krait/text/jinja/value.h"

namespace krait::text::jinja {

class Arguments {
 public:
  Arguments(Items positional, Entries named, std::string of)
      : positional_(std::move(positional)), named_(std::move(named)), of_(std::move(of)) {}
  // Fails if there are more positional arguments than names, or a named one that is not in `names`.
  void allow(Context&, std::initializer_list<std::string_view> names) const;
  size_t size() const { return positional_.size(); }
  const Value* find(size_t position, std::string_view name) const;  // null: not given
  const Value& need(Context&, size_t position, std::string_view name) const;
  std::string text(Context&, size_t position, std::string_view name) const;  // needs a string
  int64_t integer(Context&, size_t position, std::string_view name, int64_t otherwise) const;
  bool flag(size_t position, std::string_view name) const;  // absent: false
  const Items& positional() const { return positional_; }
  const Entries& named() const { return named_; }
  const std::string& of() const { return of_; }

 private:
  Items positional_;
  Entries named_;
  std::string of_;
};

bool is_filter(std::string_view name);
Value apply_filter(Context&, std::string_view name, const Value& subject, const Arguments&);

bool is_test(std::string_view name);
bool apply_test(Context&, std::string_view name, const Value& subject, const Arguments&);

// obj.name(…) of a string, list or dict. False: there is no such method.
bool call_method(Context&, const Value& obj, std::string_view name, const Arguments&, Value& result);
// Whether obj has a method of that name, which hides an entry of a dict (as in Python).
bool has_method(const Value& obj, std::string_view name);

// obj.name and obj[key]; undefined if there is no such thing. Fail on undefined and None subjects.
Value attribute(Context&, const Value& obj, const std::string& name);
Value item(Context&, const Value& obj, const Value& key);
// A path as filters take it: "a.b" or a number.
Value follow(Context&, const Value& obj, const Value& path);

// Text helpers with Python's meaning.
std::string map_case(Context&, std::string_view, bool upper);
std::string capitalize(Context&, std::string_view);
std::string replace_all(Context&, std::string_view text, std::string_view from, std::string_view to,
                        int64_t count = -1);
std::string strip(Context&, std::string_view text, const Value* chars, bool left, bool right);

}  // namespace krait::text::jinja
