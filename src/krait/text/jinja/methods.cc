// Methods of strings, lists and dicts, attributes, and text helpers.
#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "krait/text/jinja/functions.h"
#include "krait/text/jinja/lexer.h"
#include "krait/text/utf8.h"

namespace krait::text::jinja {
namespace {

using std::string_view;

constexpr std::array<string_view, 23> kStringMethods = {
    "strip",   "lstrip",       "rstrip",       "split",   "rsplit",     "splitlines", "startswith", "endswith",
    "replace", "lower",        "upper",        "title",   "capitalize", "find",       "rfind",      "count",
    "join",    "removeprefix", "removesuffix", "isdigit", "isalpha",    "isspace",    "isupper"};
constexpr std::array<string_view, 2> kListMethods = {"index", "count"};
constexpr std::array<string_view, 4> kDictMethods = {"items", "keys", "values", "get"};

size_t characters_in(string_view s) {
  return static_cast<size_t>(
      std::ranges::count_if(s, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// Parts between runs of whitespace, at most `limit` cuts (negative: all), from the left or the right.
Items split_blanks(string_view s, int64_t limit, bool from_right) {
  Items out;
  s = from_right ? trim_right(s) : trim_left(s);
  while (!s.empty()) {
    size_t cut = 0;  // bytes of the word
    if (limit >= 0 && static_cast<int64_t>(out.size()) == limit) {
      out.emplace_back(s);
      break;
    }
    if (!from_right) {
      while (cut < s.size() && !is_space(decode_utf8(s.substr(cut)).code)) cut += decode_utf8(s.substr(cut)).bytes;
      out.emplace_back(s.substr(0, cut));
      s = trim_left(s.substr(cut));
    } else {
      for (string_view rest = s; !rest.empty() && trim_right(rest).size() == rest.size();) {
        size_t last = rest.size() - 1;
        while (last > 0 && (static_cast<unsigned char>(rest[last]) & 0xC0) == 0x80) --last;
        rest = rest.substr(0, last);
        cut = s.size() - rest.size();
      }
      out.emplace_back(s.substr(s.size() - cut));
      s = trim_right(s.substr(0, s.size() - cut));
    }
  }
  if (from_right) std::ranges::reverse(out);
  return out;
}

Items split(Context& ctx, string_view s, const Arguments& args, bool from_right) {
  args.allow(ctx, {"sep", "maxsplit"});
  const int64_t limit = args.integer(ctx, 1, "maxsplit", -1);
  const Value* given = args.find(0, "sep");
  if (given == nullptr || given->is_none()) return split_blanks(s, limit, from_right);
  const std::string sep = args.text(ctx, 0, "sep");
  if (sep.empty()) ctx.fail("split at an empty separator");
  Items out;
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const size_t at = from_right ? s.rfind(sep) : s.find(sep);
    if (at == s.npos) break;
    out.emplace_back(from_right ? s.substr(at + sep.size()) : s.substr(0, at));
    s = from_right ? s.substr(0, at) : s.substr(at + sep.size());
  }
  out.emplace_back(s);
  if (from_right) std::ranges::reverse(out);
  return out;
}

Items split_lines(Context& ctx, string_view s, const Arguments& args) {
  args.allow(ctx, {"keepends"});
  Items out;
  while (!s.empty()) {
    size_t end = 0, mark = 0;
    while (end < s.size() && mark == 0) {
      const Utf8Char c = decode_utf8(s.substr(end));
      const bool crlf = c.code == '\r' && s.substr(end).starts_with("\r\n");
      const bool ends = (c.code >= 0x0A && c.code <= 0x0D) || (c.code >= 0x1C && c.code <= 0x1E) || c.code == 0x85 ||
                        c.code == 0x2028 || c.code == 0x2029;
      if (ends) {
        mark = crlf ? 2 : c.bytes;
      } else {
        end += c.bytes;
      }
    }
    out.emplace_back(s.substr(0, args.flag(0, "keepends") ? end + mark : end));
    s.remove_prefix(end + mark);
  }
  return out;
}

bool starts_or_ends(Context& ctx, string_view s, const Arguments& args, bool starts) {
  args.allow(ctx, {"prefix"});
  const Value& what = args.need(ctx, 0, "prefix");
  const auto one = [&](const Value& v) {
    if (v.string() == nullptr) ctx.fail(fmt::format("{}: a str is expected, not {}", args.of(), v.type_name()));
    return starts ? s.starts_with(*v.string()) : s.ends_with(*v.string());
  };
  if (const ListBox* l = what.as_list(); l != nullptr && l->tuple) return std::ranges::any_of(l->items, one);
  return one(what);
}

template <class Test>
bool all_characters(string_view s, const Test& test) {
  const bool any = !s.empty();
  while (!s.empty()) {
    const Utf8Char c = decode_utf8(s);
    if (!test(static_cast<utf8proc_int32_t>(c.code))) return false;
    s.remove_prefix(c.bytes);
  }
  return any;
}

bool is_letter(utf8proc_int32_t c) {
  const auto k = utf8proc_category(c);
  return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

std::string title(Context& ctx, string_view s) {  // str.title(): a letter after a non-letter is upper case
  std::string out;
  bool inside = false;
  while (!s.empty()) {
    const Utf8Char c = decode_utf8(s);
    out += map_case(ctx, s.substr(0, c.bytes), !inside);
    inside = is_letter(static_cast<utf8proc_int32_t>(c.code));
    s.remove_prefix(c.bytes);
  }
  return out;
}

Value string_method(Context& ctx, const std::string& s, string_view name, const Arguments& args) {
  ctx.spend_text(s.size());
  const auto strip_call = [&](bool left, bool right) {
    args.allow(ctx, {"chars"});
    return Value(strip(ctx, s, args.find(0, "chars"), left, right));
  };
  if (name == "strip") return strip_call(true, true);
  if (name == "lstrip") return strip_call(true, false);
  if (name == "rstrip") return strip_call(false, true);
  if (name == "split") return Value::list(ctx, split(ctx, s, args, false));
  if (name == "rsplit") return Value::list(ctx, split(ctx, s, args, true));
  if (name == "splitlines") return Value::list(ctx, split_lines(ctx, s, args));
  if (name == "startswith") return Value(starts_or_ends(ctx, s, args, true));
  if (name == "endswith") return Value(starts_or_ends(ctx, s, args, false));
  if (name == "replace") {
    args.allow(ctx, {"old", "new", "count"});
    return Value(
        replace_all(ctx, s, args.text(ctx, 0, "old"), args.text(ctx, 1, "new"), args.integer(ctx, 2, "count", -1)));
  }
  if (name == "find" || name == "rfind" || name == "count") {
    args.allow(ctx, {"sub"});
    const std::string sub = args.text(ctx, 0, "sub");
    if (name == "count") {
      if (sub.empty()) return Value(static_cast<int64_t>(characters_in(s) + 1));
      int64_t n = 0;
      for (size_t at = 0; (at = s.find(sub, at)) != s.npos; at += sub.size()) ++n;
      return Value(n);
    }
    const size_t at = name == "find" ? s.find(sub) : s.rfind(sub);
    return Value(at == s.npos ? int64_t{-1} : static_cast<int64_t>(characters_in(string_view(s).substr(0, at))));
  }
  if (name == "join") {
    args.allow(ctx, {"iterable"});
    std::string out;
    bool first = true;
    for (const Value& v : iterate(ctx, args.need(ctx, 0, "iterable"))) {
      if (v.string() == nullptr) ctx.fail(fmt::format("join: a {} among the strings", v.type_name()));
      if (!first) out += s;
      out += *v.string();
      ctx.spend_text(s.size() + v.string()->size());
      first = false;
    }
    return Value(std::move(out));
  }
  if (name == "removeprefix" || name == "removesuffix") {
    args.allow(ctx, {"prefix"});
    const std::string part = args.text(ctx, 0, "prefix");
    string_view out = s;
    if (name == "removeprefix" && out.starts_with(part)) out.remove_prefix(part.size());
    if (name == "removesuffix" && out.ends_with(part)) out.remove_suffix(part.size());
    return Value(out);
  }
  args.allow(ctx, {});
  if (name == "lower") return Value(map_case(ctx, s, false));
  if (name == "upper") return Value(map_case(ctx, s, true));
  if (name == "title") return Value(title(ctx, s));
  if (name == "capitalize") return Value(capitalize(ctx, s));
  if (name == "isdigit") {
    return Value(all_characters(s, [](auto c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_ND; }));
  }
  if (name == "isalpha") return Value(all_characters(s, is_letter));
  if (name == "isspace") return Value(all_characters(s, [](auto c) { return is_space(static_cast<char32_t>(c)); }));
  return Value(s != map_case(ctx, s, false) && s == map_case(ctx, s, true));  // isupper
}

Value dict_method(Context& ctx, const DictBox& d, string_view name, const Arguments& args) {
  if (name == "get") {
    args.allow(ctx, {"key", "default"});
    const Value& key = args.need(ctx, 0, "key");
    const Value* found = key.string() != nullptr ? d.find(*key.string()) : nullptr;
    const Value* otherwise = args.find(1, "default");
    return found != nullptr ? *found : otherwise != nullptr ? *otherwise : Value();
  }
  args.allow(ctx, {});
  Items out;
  for (const auto& [key, v] : d.entries) {
    if (name == "items") {
      out.push_back(Value::list(ctx, {Value(key), v}, true));
    } else {
      out.push_back(name == "keys" ? Value(key) : v);
    }
  }
  return Value::list(ctx, std::move(out));
}

Value list_method(Context& ctx, const ListBox& l, string_view name, const Arguments& args) {
  args.allow(ctx, {"value"});
  const Value& wanted = args.need(ctx, 0, "value");
  int64_t n = 0;
  for (size_t i = 0; i < l.items.size(); ++i) {
    if (!equal(ctx, l.items[i], wanted)) continue;
    if (name == "index") return Value(static_cast<int64_t>(i));
    ++n;
  }
  if (name == "index") ctx.fail("index: the value is not in the list");
  return Value(n);
}

}  // namespace

bool has_method(const Value& obj, string_view name) {
  if (obj.string() != nullptr) return std::ranges::find(kStringMethods, name) != kStringMethods.end();
  if (obj.as_list() != nullptr) return std::ranges::find(kListMethods, name) != kListMethods.end();
  const DictBox* d = obj.as_dict();
  return d != nullptr && d->kind == DictKind::kPlain && std::ranges::find(kDictMethods, name) != kDictMethods.end();
}

bool call_method(Context& ctx, const Value& obj, string_view name, const Arguments& args, Value& result) {
  if (!has_method(obj, name)) return false;
  if (const std::string* s = obj.string()) {
    result = string_method(ctx, *s, name, args);
  } else if (const ListBox* l = obj.as_list()) {
    result = list_method(ctx, *l, name, args);
  } else {
    result = dict_method(ctx, *obj.as_dict(), name, args);
  }
  return true;
}

Value attribute(Context& ctx, const Value& obj, const std::string& name) {
  ctx.spend(1);
  if (obj.is_undefined())
    ctx.fail(fmt::format("{} is undefined; its attribute '{}' was asked for", obj.get<Undefined>()->what, name));
  if (has_method(obj, name)) ctx.fail(fmt::format("the method '{}' is only supported in a call", name));
  if (const DictBox* d = obj.as_dict()) {
    if (const Value* v = d->find(name)) return *v;
  }
  return Value::undefined(fmt::format("attribute '{}'", name));
}

Value item(Context& ctx, const Value& obj, const Value& key) {
  ctx.spend(1);
  if (obj.is_undefined())
    ctx.fail(fmt::format("{} is undefined; one of its items was asked for", obj.get<Undefined>()->what));
  if (const DictBox* d = obj.as_dict(); d != nullptr && key.string() != nullptr) {
    if (const Value* v = d->find(*key.string())) return *v;
  }
  const int64_t* index = key.get<int64_t>();
  if (index != nullptr && (obj.as_list() != nullptr || obj.string() != nullptr)) {
    const Items all = obj.string() != nullptr ? characters(ctx, *obj.string()) : Items();
    const Items& items = obj.string() != nullptr ? all : obj.as_list()->items;
    const auto n = static_cast<int64_t>(items.size());
    const int64_t i = *index < 0 ? *index + n : *index;
    if (i >= 0 && i < n) return items[static_cast<size_t>(i)];
  }
  return Value::undefined(key.string() != nullptr ? fmt::format("item '{}'", *key.string()) : "an item");
}

Value follow(Context& ctx, const Value& obj, const Value& path) {
  if (path.string() == nullptr) return item(ctx, obj, path);
  Value at = obj;
  string_view rest = *path.string();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string name(rest.substr(0, dot));
    int64_t index = 0;
    const bool number = !name.empty() &&
                        std::from_chars(name.data(), name.data() + name.size(), index).ptr == name.data() + name.size();
    at = number ? item(ctx, at, Value(index)) : item(ctx, at, Value(name));
    if (dot == rest.npos) return at;
    rest.remove_prefix(dot + 1);
  }
}

std::string map_case(Context& ctx, string_view s, bool upper) {
  ctx.spend_text(s.size());
  std::string out;
  out.reserve(s.size());
  while (!s.empty()) {
    const Utf8Char c = decode_utf8(s);
    if (upper && c.code == 0xDF) {  // the one common letter whose upper case is two
      out += "SS";
    } else {
      const auto code = static_cast<utf8proc_int32_t>(c.code);
      append_utf8(out, static_cast<char32_t>(upper ? utf8proc_toupper(code) : utf8proc_tolower(code)));
    }
    s.remove_prefix(c.bytes);
  }
  return out;
}

std::string capitalize(Context& ctx, string_view s) {
  if (s.empty()) return {};
  const size_t n = decode_utf8(s).bytes;
  return map_case(ctx, s.substr(0, n), true) + map_case(ctx, s.substr(n), false);
}

std::string replace_all(Context& ctx, string_view text, string_view from, string_view to, int64_t count) {
  std::string out;
  if (from.empty() && count != 0) ctx.fail("replace of an empty text is not supported");
  while (count != 0) {
    const size_t at = text.find(from);
    if (at == text.npos) break;
    out += text.substr(0, at);
    out += to;
    ctx.spend_text(at + to.size());
    text.remove_prefix(at + from.size());
    --count;
  }
  ctx.spend_text(text.size());
  return out += text;
}

std::string strip(Context& ctx, string_view text, const Value* chars, bool left, bool right) {
  if (chars == nullptr || chars->is_none()) {
    if (left) text = trim_left(text);
    if (right) text = trim_right(text);
    return std::string(text);
  }
  if (chars->string() == nullptr) ctx.fail(fmt::format("the characters to strip are a {}", chars->type_name()));
  Items all = characters(ctx, text);
  size_t begin = 0, end = all.size();
  const auto drop = [&](const Value& v) {
    ctx.spend(1);
    return chars->string()->find(*v.string()) != std::string::npos;
  };
  while (left && begin < end && drop(all[begin])) ++begin;
  while (right && begin < end && drop(all[end - 1])) --end;
  std::string out;
  for (size_t i = begin; i < end; ++i) out += *all[i].string();
  return out;
}

}  // namespace krait::text::jinja
