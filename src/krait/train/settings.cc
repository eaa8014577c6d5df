#include "krait/train/settings.h"

#define TOML_ENABLE_FORMATTERS 0
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>

#include "krait/core/error.h"

namespace krait::train {
namespace {

using io::Json;

std::string place_of(const toml::node& node, const std::string& name) {
  const auto line = node.source().begin.line;
  return line == 0 ? name : fmt::format("{}:{}", name, line);
}

[[noreturn]] void fail_type(const toml::node& node, const std::string& name) {
  fail_data(place_of(node, name) + ": dates and times are no settings");
}

Json json_of(const toml::node& node, const std::string& name) {
  if (const auto* v = node.as_boolean()) return Json(v->get());
  if (const auto* v = node.as_integer()) return Json(v->get());
  if (const auto* v = node.as_floating_point()) return Json(v->get());
  if (const auto* v = node.as_string()) return Json(v->get());
  if (const auto* array = node.as_array()) {
    Json j = Json::array();
    for (const toml::node& element : *array) j.push(json_of(element, name));
    return j;
  }
  if (node.is_table()) fail_data(place_of(node, name) + ": a table inside an array is no setting");
  fail_type(node, name);
}

Setting setting_of(const toml::node& node, const std::string& name) {
  Setting s;
  s.place = place_of(node, name);
  if (const toml::table* table = node.as_table()) {
    s.is_table = true;
    for (const auto& [key, value] : *table) {
      Setting child = setting_of(value, name);
      child.place = fmt::format("{}:{}", name, key.source().begin.line);
      s.table.emplace(std::string(key.str()), std::move(child));
    }
    return s;
  }
  s.value = json_of(node, name);
  return s;
}

void merge(Setting& into, Setting&& from) {
  for (auto& [key, value] : from.table) {
    const auto at = into.table.find(key);
    if (at != into.table.end() && at->second.is_table && value.is_table) {
      merge(at->second, std::move(value));
    } else {
      into.table.insert_or_assign(key, std::move(value));
    }
  }
}

void set_places(Setting& s, const std::string& place) {
  s.place = place;
  for (auto& [key, child] : s.table) set_places(child, place);
}

void apply(Setting& root, const std::string& change) {
  const size_t equals = change.find('=');
  if (equals == std::string::npos || equals == 0) fail_usage("[set] '" + change + "' is not KEY=VALUE");
  const std::string key = change.substr(0, equals), value = change.substr(equals + 1);
  toml::table parsed;
  try {
    parsed = toml::parse(change);
  } catch (const toml::parse_error&) {
    std::string quoted;
    for (const char c : value) quoted += (c == '"' || c == '\\') ? std::string{'\\', c} : std::string(1, c);
    try {
      parsed = toml::parse(fmt::format("{} = \"{}\"", key, quoted));
    } catch (const toml::parse_error& e) {
      fail_usage(fmt::format("[set] '{}': {}", change, e.description()));
    }
  }
  Setting changed = setting_of(parsed, "--set");
  set_places(changed, "--set " + change);
  merge(root, std::move(changed));
}

// A whole number in a double, as 1e9 is written.
bool is_integral(const Json& j) {
  return j.is_number() && j.as_double() >= -0x1p63 && j.as_double() < 0x1p63 &&
         j.as_double() == static_cast<double>(static_cast<int64_t>(j.as_double()));
}

const char* kind_of(const Setting& s) {
  if (s.is_table) return "a table";
  if (s.value.is_bool()) return "a boolean";
  if (s.value.is_string()) return "a string";
  if (s.value.is_array()) return "an array";
  return "a number";
}

std::string text_of(const Json& j) { return j.is_string() ? j.as_string() : j.dump(); }

}  // namespace

Json Setting::as_json() const {
  if (!is_table) return value;
  Json j = Json::object();
  for (const auto& [key, child] : table) j.set(key, child.as_json());
  return j;
}

Setting parse_settings(std::string_view text, const std::string& name, const std::vector<std::string>& changes) {
  Setting root;
  try {
    root = setting_of(toml::parse(text), name);
  } catch (const toml::parse_error& e) {
    fail_data(fmt::format("{}:{}: {}", name, e.source().begin.line, e.description()));
  }
  root.place = name;
  for (const std::string& change : changes) apply(root, change);
  return root;
}

void SettingReader::enter(const std::string& table) {
  const auto at = root_->table.find(table);
  table_ = at == root_->table.end() ? nullptr : &at->second;
  name_ = table;
  known_.clear();
  entered_.push_back(table);
  if (table_ == nullptr || table_->is_table) return;
  problems_.push_back(
      fmt::format("{}: {} is {}, expected a table [{}]", table_->place, table, kind_of(*table_), table));
  table_ = nullptr;
}

void SettingReader::leave() {
  if (table_ == nullptr) return;
  for (const auto& [key, s] : table_->table) {
    if (std::ranges::find(known_, key) != known_.end()) continue;
    problems_.push_back(
        fmt::format("{}: [{}] has no key '{}'; it has {}", s.place, name_, key, fmt::join(known_, ", ")));
  }
}

const Setting* SettingReader::find(const std::string& key) const {
  if (table_ == nullptr) return nullptr;
  const auto at = table_->table.find(key);
  return at == table_->table.end() ? nullptr : &at->second;
}

const Json* SettingReader::scalar(const std::string& key) {
  known_.push_back(key);
  const Setting* s = find(key);
  return s == nullptr ? nullptr : &s->value;
}

void SettingReader::wrong(const std::string& key, const std::string& wanted) {
  const Setting& s = *find(key);
  const std::string found = s.value.is_number() ? text_of(s.value) : kind_of(s);
  problem(key, fmt::format("is {}, expected {}", found, wanted));
}

void SettingReader::problem(const std::string& key, const std::string& what) {
  const Setting* s = find(key);
  const std::string& place = s != nullptr ? s->place : table_ != nullptr ? table_->place : root_->place;
  problems_.push_back(fmt::format("{}: [{}]{}{} {}", place, name_, key.empty() ? "" : " ", key, what));
}

void SettingReader::read(const std::string& key, int64_t& target, int64_t least) {
  const Json* j = scalar(key);
  if (j == nullptr) return;
  if (!is_integral(*j) || j->as_double() < static_cast<double>(least)) {
    return wrong(key, fmt::format("an integer from {} on", least));
  }
  target = j->as_integer();
}

void SettingReader::read(const std::string& key, uint64_t& target) {
  auto value = static_cast<int64_t>(target);
  read(key, value, 0);
  target = static_cast<uint64_t>(value);
}

void SettingReader::read(const std::string& key, double& target, double least, double most) {
  const Json* j = scalar(key);
  if (j == nullptr) return;
  if (!j->is_number() || !(j->as_double() >= least && j->as_double() <= most)) {
    return wrong(key, fmt::format("a number in {} .. {}", least, most));
  }
  target = j->as_double();
}

void SettingReader::read(const std::string& key, bool& target) {
  const Json* j = scalar(key);
  if (j == nullptr) return;
  if (!j->is_bool()) return wrong(key, "true or false");
  target = j->as_bool();
}

void SettingReader::read(const std::string& key, std::string& target) {
  const Json* j = scalar(key);
  if (j == nullptr) return;
  if (!j->is_string() || j->as_string().empty()) return wrong(key, "a string that is not empty");
  target = j->as_string();
}

void SettingReader::read(const std::string& key, std::string& target, const std::vector<std::string>& of) {
  read(key, target);
  if (has(key) && find(key)->value.is_string() && std::ranges::find(of, target) == of.end()) {
    problem(key, fmt::format("is '{}', expected one of {}", target, fmt::join(of, ", ")));
  }
}

void SettingReader::read(const std::string& key, std::vector<std::string>& target) {
  const Json* j = scalar(key);
  if (j == nullptr) return;
  std::vector<std::string> values;
  if (j->is_string()) values.push_back(j->as_string());
  for (size_t i = 0; i < j->size(); ++i) {
    if (j->is_array() && j->at(i).is_string()) values.push_back(j->at(i).as_string());
  }
  const bool whole = j->is_string() || (j->is_array() && j->size() == values.size());
  if (!whole || values.empty() || std::ranges::count(values, "") > 0) return wrong(key, "one or more strings");
  target = values;
}

void SettingReader::read(const std::string& key, std::map<std::string, std::string, std::less<>>& target) {
  known_.push_back(key);
  const Setting* s = find(key);
  if (s == nullptr) return;
  if (!s->is_table) return wrong(key, fmt::format("a table [{}.{}]", name_, key));
  for (const auto& [name, value] : s->table) {
    const bool is_scalar = !value.is_table && !value.value.is_array();
    if (is_scalar) {
      target[name] = text_of(value.value);
    } else {
      problems_.push_back(
          fmt::format("{}: [{}.{}] {} is {}, expected one value", value.place, name_, key, name, kind_of(value)));
    }
  }
}

void SettingReader::read(const std::string& key, Json& target) {
  known_.push_back(key);
  if (const Setting* s = find(key)) target = s->as_json();
}

void SettingReader::finish() {
  for (const auto& [key, s] : root_->table) {
    if (std::ranges::find(entered_, key) != entered_.end()) continue;
    problems_.push_back(
        s.is_table ? fmt::format("{}: there is no table [{}]; there are {}", s.place, key, fmt::join(entered_, ", "))
                   : fmt::format("{}: the key '{}' stands in no table", s.place, key));
  }
  if (problems_.empty()) return;
  std::string all = problems_.size() == 1 ? "" : fmt::format("{} problems:", problems_.size());
  for (const std::string& p : problems_) all += (problems_.size() == 1 ? "" : "\n  ") + p;
  fail_data("[config] " + all);
}

}  // namespace krait::train
