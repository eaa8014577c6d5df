#include "krait/serve/api/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <set>

#include "krait/core/error.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

using nlohmann::json;

struct Fault {
  std::string path, code, rule;
};

bool is_integer(const json& v) {
  return v.is_number_integer() || (v.is_number_float() && std::trunc(v.get<double>()) == v.get<double>());
}

bool has_type(const json& v, const std::string& type) {
  if (type == "object") return v.is_object();
  if (type == "array") return v.is_array();
  if (type == "string") return v.is_string();
  if (type == "boolean") return v.is_boolean();
  if (type == "null") return v.is_null();
  if (type == "number") return v.is_number();
  if (type == "integer") return v.is_number() && is_integer(v);
  throw Error(ErrorCode::kInternal, "[schema] no such type: " + type);
}

std::string types_text(const json& type) {
  if (type.is_string()) return type.get<std::string>();
  std::string out;
  for (const json& t : type) out += (out.empty() ? "" : " or ") + t.get<std::string>();
  return out;
}

std::string member(const std::string& path, const std::string& name) { return path.empty() ? name : path + "." + name; }

std::optional<Fault> check(const json& v, const json& schema, const std::string& path);

std::optional<Fault> check_type(const json& v, const json& type, const std::string& path) {
  const bool fits =
      type.is_string() ? has_type(v, type) : std::ranges::any_of(type, [&](const json& t) { return has_type(v, t); });
  if (fits) return {};
  return Fault{path, "invalid_type", fmt::format("wants {}, not {}", types_text(type), v.type_name())};
}

std::optional<Fault> check_number(const json& v, const json& schema, const std::string& path) {
  if (schema.contains("minimum") && v < schema["minimum"]) {
    return Fault{path, "invalid_value", fmt::format("is {}, the least is {}", v.dump(), schema["minimum"].dump())};
  }
  if (schema.contains("maximum") && v > schema["maximum"]) {
    return Fault{path, "invalid_value", fmt::format("is {}, the most is {}", v.dump(), schema["maximum"].dump())};
  }
  return {};
}

std::optional<Fault> check_size(size_t n, const json& schema, const char* least, const char* most, const char* unit,
                                const std::string& path) {
  if (schema.contains(least) && n < schema[least].get<size_t>()) {
    return Fault{path, "invalid_value", fmt::format("has {} {}, the least is {}", n, unit, schema[least].dump())};
  }
  if (schema.contains(most) && n > schema[most].get<size_t>()) {
    return Fault{path, "invalid_value", fmt::format("has {} {}, the most is {}", n, unit, schema[most].dump())};
  }
  return {};
}

// Compiled once: there are as many as the schemas have.
const std::regex& pattern_of(const std::string& text) {
  static std::mutex mutex;
  static std::map<std::string, std::regex> compiled;
  const std::lock_guard lock(mutex);
  const auto it = compiled.find(text);
  return it != compiled.end() ? it->second : compiled.emplace(text, std::regex(text)).first->second;
}

std::optional<Fault> check_string(const json& v, const json& schema, const std::string& path) {
  const auto& s = v.get_ref<const std::string&>();
  if (auto f = check_size(characters(s), schema, "minLength", "maxLength", "characters", path)) return f;
  if (schema.contains("pattern") &&
      !std::regex_search(s, pattern_of(schema["pattern"].get_ref<const std::string&>()))) {
    return Fault{path, "invalid_value", fmt::format("does not have the form {}", schema["pattern"].get<std::string>())};
  }
  return {};
}

std::optional<Fault> check_array(const json& v, const json& schema, const std::string& path) {
  if (auto f = check_size(v.size(), schema, "minItems", "maxItems", "items", path)) return f;
  if (schema.contains("contains") &&
      std::ranges::all_of(v, [&](const json& one) { return check(one, schema["contains"], path).has_value(); })) {
    return Fault{path, "invalid_value",
                 fmt::format("wants {}", schema["contains"].value("description", schema["contains"].dump()))};
  }
  if (!schema.contains("items")) return {};
  for (size_t i = 0; i < v.size(); ++i) {
    if (auto f = check(v[i], schema["items"], fmt::format("{}[{}]", path, i))) return f;
  }
  return {};
}

std::optional<Fault> check_object(const json& v, const json& schema, const std::string& path) {
  if (schema.contains("required")) {
    for (const json& name : schema["required"]) {
      if (!v.contains(name.get<std::string>())) {
        return Fault{member(path, name), "missing_required_parameter", "is required"};
      }
    }
  }
  if (auto f = check_size(v.size(), schema, "minProperties", "maxProperties", "members", path)) return f;
  static const json kNone = json::object(), kAny = true;
  const json& properties = schema.contains("properties") ? schema["properties"] : kNone;
  const json& others = schema.contains("additionalProperties") ? schema["additionalProperties"] : kAny;
  for (const auto& [name, value] : v.items()) {
    const std::string here = member(path, name);
    if (schema.contains("propertyNames") && check(json(name), schema["propertyNames"], here)) {
      return Fault{here, "invalid_value", "is not a name that may stand here"};
    }
    if (properties.contains(name)) {
      if (auto f = check(value, properties[name], here)) return f;
    } else if (others.is_object()) {
      if (auto f = check(value, others, here)) return f;
    } else if (!others.get<bool>()) {
      return Fault{here, "unknown_parameter", "is not known here"};
    }
  }
  return {};
}

// The fault of the alternative that came nearest: the one of the right type, if there is one.
std::optional<Fault> check_any(const json& v, const json& all, const std::string& path) {
  std::optional<Fault> nearest;
  for (const json& one : all) {
    auto f = check(v, one, path);
    if (!f) return {};
    if (!nearest || nearest->code == "invalid_type" || f->path.size() > nearest->path.size()) nearest = std::move(f);
  }
  return nearest;
}

// What may not be, or of several such things the one that is; the last field that it is about.
Fault contradiction(const json& v, const json& banned, const std::string& path) {
  const json* found = &banned;
  if (banned.contains("anyOf")) {
    found = &*std::ranges::find_if(banned["anyOf"], [&](const json& one) { return !check(v, one, path); });
  }
  const std::string where = found->contains("required") ? member(path, found->at("required").back()) : path;
  return {where, "invalid_value", found->value("description", "must not be this")};
}

std::optional<Fault> check(const json& v, const json& schema, const std::string& path) {
  if (schema.contains("type")) {
    if (auto f = check_type(v, schema["type"], path)) return f;
  }
  if (schema.contains("enum") && std::ranges::find(schema["enum"], v) == schema["enum"].end()) {
    return Fault{path, "invalid_value", fmt::format("must be one of {}", schema["enum"].dump())};
  }
  if (schema.contains("const") && v != schema["const"]) {
    return Fault{path, "invalid_value", fmt::format("must be {}", schema["const"].dump())};
  }
  std::optional<Fault> f;
  if (v.is_number()) f = check_number(v, schema, path);
  if (v.is_string()) f = check_string(v, schema, path);
  if (v.is_array()) f = check_array(v, schema, path);
  if (v.is_object()) f = check_object(v, schema, path);
  if (f) return f;
  if (schema.contains("anyOf")) f = check_any(v, schema["anyOf"], path);
  if (f) return f;
  if (schema.contains("not") && !check(v, schema["not"], path)) {
    return contradiction(v, schema["not"], path);
  }
  if (schema.contains("if") && !check(v, schema["if"], path)) return check(v, schema["then"], path);
  return {};
}

void know_keywords(const json& schema) {
  static const std::set<std::string> known = {"type",
                                              "enum",
                                              "const",
                                              "minimum",
                                              "maximum",
                                              "minLength",
                                              "maxLength",
                                              "minItems",
                                              "maxItems",
                                              "items",
                                              "required",
                                              "pattern",
                                              "if",
                                              "then",
                                              "properties",
                                              "anyOf",
                                              "additionalProperties",
                                              "propertyNames",
                                              "minProperties",
                                              "maxProperties",
                                              "not",
                                              "title",
                                              "description",
                                              "default",
                                              "examples",
                                              "contains"};
  for (const auto& [name, part] : schema.items()) {
    if (!known.contains(name)) throw Error(ErrorCode::kInternal, "[schema] no such keyword: " + name);
    if (name == "properties") {
      for (const auto& [unused, one] : part.items()) know_keywords(one);
    } else if (name == "anyOf") {
      for (const json& one : part) know_keywords(one);
    } else if (part.is_object() && name != "default" && name != "const") {
      know_keywords(part);
    }
  }
}

}  // namespace

size_t characters(const std::string& text) {
  return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

void check_keywords(const json& schema) { know_keywords(schema); }

void check_schema(const json& value, const json& schema) {
  const auto f = check(value, schema, "");
  if (!f) return;
  const std::string name = f->path.empty() ? "the body" : "'" + f->path + "'";
  throw ServeError(400, f->code, fmt::format("[request] {} {}", name, f->rule),
                   f->path.empty() ? std::optional<std::string>{} : f->path);
}

json parse_body(const std::string& body) {
  constexpr int kDeepest = 64;
  json out;
  std::vector<std::set<std::string>> names;  // of the objects around
  try {
    out = json::parse(body, [&](int depth, json::parse_event_t event, json& name) {
      if (depth > kDeepest) throw ServeError(400, "invalid_json", "[request] the body is nested too deeply");
      if (event == json::parse_event_t::object_start) names.emplace_back();
      if (event == json::parse_event_t::object_end) names.pop_back();
      if (event == json::parse_event_t::key && !names.back().insert(name.get<std::string>()).second) {
        throw ServeError(400, "invalid_json", fmt::format("[request] the body has {} twice", name.dump()));
      }
      return true;
    });
  } catch (const json::exception& e) {
    throw ServeError(400, "invalid_json", fmt::format("[request] the body is not JSON: {}", e.what()));
  }
  if (!out.is_object()) throw ServeError(400, "invalid_json", "[request] the body is not a JSON object");
  return out;
}

}  // namespace krait::serve
