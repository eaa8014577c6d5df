#include "krait/io/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "krait/io/problems.h"

namespace krait::io {
namespace {

constexpr size_t kShown = 60;  // bytes of a string in a message

std::string describe(const Json& j) {
  if (j.is_array()) return fmt::format("an array of {}", j.size());
  if (j.is_object() && j.size() == 1 && j.items().front().first == "__float__") return j.dump();
  if (j.is_object()) return fmt::format("an object of {}", j.size());
  if (j.is_string() && j.as_string().size() > kShown) {
    return fmt::format("a string of {} bytes", j.as_string().size());
  }
  return j.dump();
}

[[noreturn]] void fail_type(const char* wanted, const Json& found) {
  fail_data(fmt::format("[json] expected {}, found {}", wanted, describe(found)));
}

// The three spellings of Python's json module, as transformers 5 writes them.
bool non_finite(const std::string& name, double& v) {
  if (name == "Infinity") {
    v = std::numeric_limits<double>::infinity();
  } else if (name == "-Infinity") {
    v = -std::numeric_limits<double>::infinity();
  } else if (name == "NaN") {
    v = std::numeric_limits<double>::quiet_NaN();
  } else {
    return false;
  }
  return true;
}

// The value of `key` by `get`, `otherwise` if absent or null; the key is put in front of a complaint.
template <class T, class Get>
T value_or(const Json& object, std::string_view key, T otherwise, Get get) {
  const Json* v = object.find(key);
  if (v == nullptr || v->is_null()) return otherwise;
  try {
    return get(*v);
  } catch (const Error& e) {
    fail_data(fmt::format("[json] {}: {}", quote_name(key), inner_message(e)));
  }
}

}  // namespace

Json Json::object() {
  Json j;
  j.value_ = Object();
  return j;
}

Json Json::array() {
  Json j;
  j.value_ = Array();
  return j;
}

bool Json::as_bool() const {
  if (const bool* v = std::get_if<bool>(&value_)) return *v;
  fail_type("true or false", *this);
}

int64_t Json::as_integer() const {
  if (const int64_t* v = std::get_if<int64_t>(&value_)) return *v;
  if (const double* v = std::get_if<double>(&value_)) {
    if (*v >= -0x1p63 && *v < 0x1p63 && *v == std::floor(*v)) return static_cast<int64_t>(*v);
  }
  fail_type("an integer of 64 bits", *this);
}

double Json::as_double() const {
  if (const double* v = std::get_if<double>(&value_)) return *v;
  if (const int64_t* v = std::get_if<int64_t>(&value_)) return static_cast<double>(*v);
  if (is_object() && size() == 1) {
    const Json* name = find("__float__");
    double v = 0;
    if (name != nullptr && name->is_string() && non_finite(name->as_string(), v)) return v;
  }
  fail_type("a number", *this);
}

const std::string& Json::as_string() const {
  if (const std::string* v = std::get_if<std::string>(&value_)) return *v;
  fail_type("a string", *this);
}

const Json::Object& Json::items() const {
  if (const Object* v = std::get_if<Object>(&value_)) return *v;
  fail_type("an object", *this);
}

size_t Json::size() const {
  if (const Array* v = std::get_if<Array>(&value_)) return v->size();
  if (const Object* v = std::get_if<Object>(&value_)) return v->size();
  return 0;
}

const Json& Json::at(size_t i) const {
  const Array* v = std::get_if<Array>(&value_);
  if (v == nullptr) fail_type("an array", *this);
  if (i >= v->size()) fail_data(fmt::format("[json] element {} of an array of {}", i, v->size()));
  return (*v)[i];
}

const Json& Json::at(std::string_view key) const {
  items();  // complains unless an object
  const Json* v = find(key);
  if (v == nullptr) fail_data(fmt::format("[json] {} is missing", quote_name(key)));
  return *v;
}

const Json* Json::find(std::string_view key) const {
  const Object* object = std::get_if<Object>(&value_);
  if (object == nullptr) return nullptr;
  const auto it = std::ranges::find(*object, key, &Object::value_type::first);
  return it == object->end() ? nullptr : &it->second;
}

bool Json::boolean_or(std::string_view key, bool otherwise) const {
  return value_or(*this, key, otherwise, [](const Json& v) { return v.as_bool(); });
}

int64_t Json::integer_or(std::string_view key, int64_t otherwise) const {
  return value_or(*this, key, otherwise, [](const Json& v) { return v.as_integer(); });
}

double Json::number_or(std::string_view key, double otherwise) const {
  return value_or(*this, key, otherwise, [](const Json& v) { return v.as_double(); });
}

std::string Json::string_or(std::string_view key, const std::string& otherwise) const {
  return value_or(*this, key, otherwise, [](const Json& v) { return v.as_string(); });
}

void Json::set(std::string key, Json v) {
  Object* object = std::get_if<Object>(&value_);
  if (object == nullptr) throw Error(ErrorCode::kInternal, "[json] set() of something that is not an object");
  const auto it = std::ranges::find(*object, key, &Object::value_type::first);
  if (it != object->end()) {
    it->second = std::move(v);
  } else {
    object->emplace_back(std::move(key), std::move(v));
  }
}

void Json::push(Json v) {
  Array* array = std::get_if<Array>(&value_);
  if (array == nullptr) throw Error(ErrorCode::kInternal, "[json] push() on something that is not an array");
  array->push_back(std::move(v));
}

}  // namespace krait::io
