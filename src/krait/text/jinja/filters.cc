// Filters and tests.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "krait/text/jinja/functions.h"
#include "krait/text/jinja/lexer.h"
#include "krait/text/utf8.h"

namespace krait::text::jinja {
namespace {

using Filter = Value (*)(Context&, const Value&, const Arguments&);
using Test = bool (*)(Context&, const Value&, const Arguments&);

Value first_or_last(Context& ctx, const Value& v, const Arguments& args, bool first) {
  args.allow(ctx, {});
  const Items items = iterate(ctx, v);
  if (items.empty()) return Value::undefined(first ? "the first of nothing" : "the last of nothing");
  return first ? items.front() : items.back();
}

Value length(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {});
  return Value(static_cast<int64_t>(iterate(ctx, v).size()));
}

Value or_default(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {"default_value", "boolean"});
  const Value* otherwise = args.find(0, "default_value");
  const bool missing = v.is_undefined() || (args.flag(1, "boolean") && !truth(v));
  return !missing ? v : otherwise != nullptr ? *otherwise : Value("");
}

Value join(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {"d", "attribute"});
  const Value* d = args.find(0, "d");
  const Value* path = args.find(1, "attribute");
  const std::string between = d != nullptr ? to_text(ctx, *d) : "";
  std::string out;
  bool first = true;
  for (const Value& item : iterate(ctx, v)) {
    if (!first) out += between;
    out += to_text(ctx, path != nullptr ? follow(ctx, item, *path) : item);
    ctx.spend_text(between.size());
    first = false;
  }
  return Value(std::move(out));
}

Value tojson(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {"ensure_ascii", "indent"});
  if (args.flag(0, "ensure_ascii")) ctx.fail("tojson with ensure_ascii is not supported");
  const Value* indent = args.find(1, "indent");
  if (args.size() > 0) ctx.fail("tojson takes named arguments");
  const int64_t n = indent == nullptr || indent->is_none() ? -1 : args.integer(ctx, 1, "indent", 0);
  if (n > 16) ctx.fail(fmt::format("tojson with indent {}", n));
  return Value(to_json(ctx, v, static_cast<int>(n)));
}

Value indent(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {"width", "first", "blank"});
  const Value* width = args.find(0, "width");
  std::string pad;
  if (width != nullptr && width->string() != nullptr) {
    pad = *width->string();
  } else {
    pad.assign(static_cast<size_t>(std::clamp<int64_t>(args.integer(ctx, 0, "width", 4), 0, 1000)), ' ');
  }
  const std::string text = to_text(ctx, v);
  std::string out;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const bool wanted = at == 0 ? args.flag(1, "first") : end > at || args.flag(2, "blank");
    if (wanted) out += pad;
    out += text.substr(at, end - at);
    if (end < text.size()) out += '\n';
    ctx.spend_text(pad.size() + end - at);
    at = end + 1;
  }
  return Value(std::move(out));
}

Value to_int(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {"default"});
  const int64_t otherwise = args.integer(ctx, 0, "default", 0);
  if (const double* d = v.get<double>()) return Value(std::abs(*d) < 9e18 ? static_cast<int64_t>(*d) : otherwise);
  if (v.is_number()) return Value(v.is_integer() ? *v.get<int64_t>() : static_cast<int64_t>(v.number()));
  if (v.string() == nullptr) return Value(otherwise);
  const std::string_view s = trim_right(trim_left(*v.string()));
  double d = 0;
  int64_t i = 0;
  const char *begin = s.data() + s.starts_with('+'), *end = s.data() + s.size();
  if (const auto r = std::from_chars(begin, end, i); r.ec == std::errc() && r.ptr == end) return Value(i);
  if (const auto r = std::from_chars(begin, end, d); r.ec == std::errc() && r.ptr == end && std::abs(d) < 9e18) {
    return Value(static_cast<int64_t>(d));
  }
  return Value(otherwise);
}

Value to_float(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {"default"});
  const Value* otherwise = args.find(0, "default");
  if (v.is_number()) return Value(v.number());
  double d = 0;
  if (const std::string* text = v.string()) {
    const std::string_view s = trim_right(trim_left(*text));
    const char *begin = s.data() + s.starts_with('+'), *end = s.data() + s.size();
    if (const auto r = std::from_chars(begin, end, d); r.ec == std::errc() && r.ptr == end) return Value(d);
  }
  return otherwise != nullptr ? *otherwise : Value(0.0);
}

// The items whose `path` (or themselves) pass a test, or do not; without a test: that are true.
Value select(Context& ctx, const Value& v, const Arguments& args, bool by_attribute, bool keep) {
  const size_t skip = by_attribute ? 1 : 0;
  if (!args.named().empty()) ctx.fail(args.of() + " takes no named arguments");
  if (args.size() < skip) ctx.fail(args.of() + " needs an attribute");
  std::string test;
  if (args.size() > skip) test = args.text(ctx, skip, "test");
  if (!test.empty() && !is_test(test)) ctx.fail(fmt::format("the test '{}' is not supported", test));
  Items rest;
  if (args.size() > skip + 1)
    rest.assign(args.positional().begin() + static_cast<int64_t>(skip) + 1, args.positional().end());
  const Arguments test_args(std::move(rest), {}, test);
  Items out;
  for (const Value& item : iterate(ctx, v)) {
    const Value subject = by_attribute ? follow(ctx, item, args.positional()[0]) : item;
    if ((test.empty() ? truth(subject) : apply_test(ctx, test, subject, test_args)) == keep) out.push_back(item);
  }
  return Value::list(ctx, std::move(out));
}

Value map(Context& ctx, const Value& v, const Arguments& args) {
  Items out;
  if (args.size() == 0) {
    args.allow(ctx, {"attribute", "default"});
    const Value& path = args.need(ctx, 0, "attribute");
    const Value* otherwise = args.find(1, "default");
    for (const Value& item : iterate(ctx, v)) {
      Value found = follow(ctx, item, path);
      out.push_back(found.is_undefined() && otherwise != nullptr ? *otherwise : std::move(found));
    }
    return Value::list(ctx, std::move(out));
  }
  const std::string name = args.text(ctx, 0, "filter");
  if (!is_filter(name)) ctx.fail(fmt::format("the filter '{}' is not supported", name));
  if (name == "map") ctx.fail("map of map is not supported");
  const Arguments rest(Items(args.positional().begin() + 1, args.positional().end()), args.named(), name);
  for (const Value& item : iterate(ctx, v)) out.push_back(apply_filter(ctx, name, item, rest));
  return Value::list(ctx, std::move(out));
}

Value fold(Context& ctx, const Value& v, bool case_sensitive) {
  return v.string() != nullptr && !case_sensitive ? Value(map_case(ctx, *v.string(), false)) : v;
}

void sort_by_key(Context& ctx, std::vector<std::pair<Value, Value>>& keyed, bool reverse) {
  std::ranges::stable_sort(keyed, [&](const auto& a, const auto& b) {
    return reverse ? less(ctx, b.first, a.first) : less(ctx, a.first, b.first);
  });
}

Value sort(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {"reverse", "case_sensitive", "attribute"});
  const Value* path = args.find(2, "attribute");
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : iterate(ctx, v)) {
    Value key = fold(ctx, path != nullptr ? follow(ctx, item, *path) : item, args.flag(1, "case_sensitive"));
    keyed.emplace_back(std::move(key), std::move(item));
  }
  sort_by_key(ctx, keyed, args.flag(0, "reverse"));
  Items out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return Value::list(ctx, std::move(out));
}

Value items(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {});
  if (v.is_undefined()) return Value::list(ctx, {});
  Value out;
  if (v.as_dict() == nullptr || !call_method(ctx, v, "items", args, out))
    ctx.fail(fmt::format("items of a {}", v.type_name()));
  return out;
}

Value dictsort(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {});
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& pair : iterate(ctx, items(ctx, v, args)))
    keyed.emplace_back(fold(ctx, pair.as_list()->items[0], false), pair);
  sort_by_key(ctx, keyed, false);
  Items out;
  for (auto& [key, pair] : keyed) out.push_back(std::move(pair));
  return Value::list(ctx, std::move(out));
}

Value unique(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {});
  Items seen, out;
  for (const Value& item : iterate(ctx, v)) {
    const Value key = fold(ctx, item, false);
    if (std::ranges::any_of(seen, [&](const Value& s) { return equal(ctx, s, key); })) continue;
    seen.push_back(key);
    out.push_back(item);
  }
  return Value::list(ctx, std::move(out));
}

Value extreme(Context& ctx, const Value& v, const Arguments& args, bool greatest) {
  args.allow(ctx, {});
  const Items all = iterate(ctx, v);
  if (all.empty()) return Value::undefined("the extreme of nothing");
  const Value* best = &all[0];
  for (const Value& item : all) {
    const Value a = fold(ctx, item, false), b = fold(ctx, *best, false);
    if (greatest ? less(ctx, b, a) : less(ctx, a, b)) best = &item;
  }
  return *best;
}

Value reverse(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {});
  Items all = iterate(ctx, v);
  std::ranges::reverse(all);
  if (v.string() == nullptr) return Value::list(ctx, std::move(all));
  std::string out;
  for (const Value& c : all) out += *c.string();
  return Value(std::move(out));
}

Value title(Context& ctx, const Value& v, const Arguments& args) {  // the filter: words begin after blanks and -({[<
  args.allow(ctx, {});
  const std::string text = to_text(ctx, v);
  std::string out;
  bool start = true;
  for (std::string_view s = text; !s.empty();) {
    const Utf8Char c = decode_utf8(s);
    const bool separator =
        is_space(c.code) ||
        (c.code < 0x80 && std::string_view("-({[<").find(static_cast<char>(c.code)) != std::string_view::npos);
    out += map_case(ctx, s.substr(0, c.bytes), start);
    start = separator;
    s.remove_prefix(c.bytes);
  }
  return Value(std::move(out));
}

Value absolute(Context& ctx, const Value& v, const Arguments& args) {
  args.allow(ctx, {});
  if (!v.is_number()) ctx.fail(fmt::format("abs of a {}", v.type_name()));
  if (const int64_t* i = v.get<int64_t>(); i != nullptr && *i != INT64_MIN) return Value(*i < 0 ? -*i : *i);
  return Value(std::abs(v.number()));
}

template <class F>
Value on_text(Context& ctx, const Value& v, const Arguments& args, const F& f) {
  args.allow(ctx, {});
  return Value(f(to_text(ctx, v)));
}

const std::map<std::string_view, Filter>& filters() {
  using C = Context;
  using V = const Value;
  using A = const Arguments;
  static const std::map<std::string_view, Filter> table = {
      {"abs", absolute},
      {"capitalize",
       [](C& c, V& v, A& a) { return on_text(c, v, a, [&](const std::string& s) { return capitalize(c, s); }); }},
      {"count", length},
      {"d", or_default},
      {"default", or_default},
      {"dictsort", dictsort},
      {"first", [](C& c, V& v, A& a) { return first_or_last(c, v, a, true); }},
      {"float", to_float},
      {"indent", indent},
      {"int", to_int},
      {"items", items},
      {"join", join},
      {"last", [](C& c, V& v, A& a) { return first_or_last(c, v, a, false); }},
      {"length", length},
      {"list",
       [](C& c, V& v, A& a) {
         a.allow(c, {});
         return Value::list(c, iterate(c, v));
       }},
      {"lower",
       [](C& c, V& v, A& a) { return on_text(c, v, a, [&](const std::string& s) { return map_case(c, s, false); }); }},
      {"map", map},
      {"max", [](C& c, V& v, A& a) { return extreme(c, v, a, true); }},
      {"min", [](C& c, V& v, A& a) { return extreme(c, v, a, false); }},
      {"reject", [](C& c, V& v, A& a) { return select(c, v, a, false, false); }},
      {"rejectattr", [](C& c, V& v, A& a) { return select(c, v, a, true, false); }},
      {"replace",
       [](C& c, V& v, A& a) {
         a.allow(c, {"old", "new", "count"});
         return Value(
             replace_all(c, to_text(c, v), a.text(c, 0, "old"), a.text(c, 1, "new"), a.integer(c, 2, "count", -1)));
       }},
      {"reverse", reverse},
      {"safe",
       [](C& c, V& v, A& a) {
         a.allow(c, {});
         return v;
       }},
      {"select", [](C& c, V& v, A& a) { return select(c, v, a, false, true); }},
      {"selectattr", [](C& c, V& v, A& a) { return select(c, v, a, true, true); }},
      {"sort", sort},
      {"string", [](C& c, V& v, A& a) { return on_text(c, v, a, [](std::string s) { return s; }); }},
      {"title", title},
      {"tojson", tojson},
      {"trim",
       [](C& c, V& v, A& a) {
         a.allow(c, {"chars"});
         return Value(strip(c, to_text(c, v), a.find(0, "chars"), true, true));
       }},
      {"unique", unique},
      {"upper",
       [](C& c, V& v, A& a) { return on_text(c, v, a, [&](const std::string& s) { return map_case(c, s, true); }); }},
  };
  return table;
}

bool is_case(Context& ctx, const Value& v, bool upper) {
  const std::string s = to_text(ctx, v);
  return s == map_case(ctx, s, upper) && s != map_case(ctx, s, !upper);
}

int64_t remainder(Context& ctx, const Value& v, int64_t by) {
  if (!v.is_integer() || by == 0) ctx.fail("a test of divisibility needs integers, not by 0");
  return by == -1 ? 0 : *v.get<int64_t>() % by;
}

const std::map<std::string_view, Test>& tests() {
  using C = Context;
  using V = const Value;
  using A = const Arguments;
  static const Test eq = [](C& c, V& v, A& a) { return equal(c, v, a.need(c, 0, "other")); };
  static const Test ne = [](C& c, V& v, A& a) { return !equal(c, v, a.need(c, 0, "other")); };
  static const Test lt = [](C& c, V& v, A& a) { return less(c, v, a.need(c, 0, "other")); };
  static const Test gt = [](C& c, V& v, A& a) { return less(c, a.need(c, 0, "other"), v); };
  static const Test le = [](C& c, V& v, A& a) { return !less(c, a.need(c, 0, "other"), v); };
  static const Test ge = [](C& c, V& v, A& a) { return !less(c, v, a.need(c, 0, "other")); };
  static const std::map<std::string_view, Test> table = {
      {"boolean", [](C&, V& v, A&) { return v.get<bool>() != nullptr; }},
      {"callable", [](C&, V& v, A&) { return v.get<Builtin>() != nullptr || v.get<const Macro*>() != nullptr; }},
      {"defined", [](C&, V& v, A&) { return !v.is_undefined(); }},
      {"divisibleby", [](C& c, V& v, A& a) { return remainder(c, v, a.integer(c, 0, "num", 0)) == 0; }},
      {"eq", eq},
      {"equalto", eq},
      {"==", eq},
      {"even", [](C& c, V& v, A&) { return remainder(c, v, 2) == 0; }},
      {"false", [](C&, V& v, A&) { return v.get<bool>() != nullptr && !*v.get<bool>(); }},
      {"float", [](C&, V& v, A&) { return v.get<double>() != nullptr; }},
      {"ge", ge},
      {"greaterthan", gt},
      {"gt", gt},
      {"in", [](C& c, V& v, A& a) { return contains(c, a.need(c, 0, "seq"), v); }},
      {"integer", [](C&, V& v, A&) { return v.is_integer(); }},
      {"iterable",
       [](C&, V& v, A&) {
         return v.string() || v.as_list() || v.is_undefined() || (v.as_dict() && !v.as_namespace());
       }},
      {"le", le},
      {"lessthan", lt},
      {"lower", [](C& c, V& v, A&) { return is_case(c, v, false); }},
      {"lt", lt},
      {"mapping", [](C&, V& v, A&) { return v.as_dict() != nullptr && v.as_dict()->kind == DictKind::kPlain; }},
      {"ne", ne},
      {"none", [](C&, V& v, A&) { return v.is_none(); }},
      {"number", [](C&, V& v, A&) { return v.is_number(); }},
      {"odd", [](C& c, V& v, A&) { return remainder(c, v, 2) != 0; }},
      {"sequence", [](C&, V& v, A&) { return v.string() || v.as_list() || (v.as_dict() && !v.as_namespace()); }},
      {"string", [](C&, V& v, A&) { return v.string() != nullptr; }},
      {"true", [](C&, V& v, A&) { return v.get<bool>() != nullptr && *v.get<bool>(); }},
      {"undefined", [](C&, V& v, A&) { return v.is_undefined(); }},
      {"upper", [](C& c, V& v, A&) { return is_case(c, v, true); }},
  };
  return table;
}

}  // namespace

void Arguments::allow(Context& ctx, std::initializer_list<std::string_view> names) const {
  if (positional_.size() > names.size())
    ctx.fail(fmt::format("{} takes at most {} arguments, {} given", of_, names.size(), positional_.size()));
  for (const auto& [name, v] : named_) {
    const auto it = std::find(names.begin(), names.end(), name);
    if (it == names.end()) ctx.fail(fmt::format("{} has no argument '{}'", of_, name));
    if (it - names.begin() < static_cast<int64_t>(positional_.size()))
      ctx.fail(fmt::format("{}: '{}' is given twice", of_, name));
  }
}

const Value* Arguments::find(size_t position, std::string_view name) const {
  if (position < positional_.size()) return &positional_[position];
  for (const auto& [key, v] : named_) {
    if (key == name) return &v;
  }
  return nullptr;
}

const Value& Arguments::need(Context& ctx, size_t position, std::string_view name) const {
  const Value* v = find(position, name);
  if (v == nullptr) ctx.fail(fmt::format("{} needs '{}'", of_, name));
  return *v;
}

std::string Arguments::text(Context& ctx, size_t position, std::string_view name) const {
  const Value& v = need(ctx, position, name);
  if (v.string() == nullptr) ctx.fail(fmt::format("{}: '{}' is a {}, not a str", of_, name, v.type_name()));
  return *v.string();
}

int64_t Arguments::integer(Context& ctx, size_t position, std::string_view name, int64_t otherwise) const {
  const Value* v = find(position, name);
  if (v == nullptr || v->is_none()) return otherwise;
  if (!v->is_integer()) ctx.fail(fmt::format("{}: '{}' is a {}, not an int", of_, name, v->type_name()));
  return *v->get<int64_t>();
}

bool Arguments::flag(size_t position, std::string_view name) const {
  const Value* v = find(position, name);
  return v != nullptr && truth(*v);
}

bool is_filter(std::string_view name) { return filters().contains(name); }
bool is_test(std::string_view name) { return tests().contains(name); }

Value apply_filter(Context& ctx, std::string_view name, const Value& subject, const Arguments& args) {
  ctx.spend(1);
  return filters().at(name)(ctx, subject, args);
}

bool apply_test(Context& ctx, std::string_view name, const Value& subject, const Arguments& args) {
  ctx.spend(1);
  return tests().at(name)(ctx, subject, args);
}

}  // namespace krait::text::jinja
