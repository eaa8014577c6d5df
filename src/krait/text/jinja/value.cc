#include "krait/text/jinja/value.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cmath>

#include "krait/core/error.h"
#include "krait/text/utf8.h"

namespace krait::text::jinja {
namespace {

constexpr int kDeepest = 100;

int depth_of(Context& ctx, const Value& v) {
  if (v.as_namespace() != nullptr) ctx.fail("a namespace inside another value is not supported");
  if (const ListBox* l = v.as_list()) return l->depth;
  if (const DictBox* d = v.as_dict()) return d->depth;
  return 0;
}

int checked_depth(Context& ctx, int inner) {
  if (inner >= kDeepest) ctx.fail(fmt::format("values nested deeper than {}", kDeepest));
  return inner + 1;
}

std::string number_text(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  std::string s = fmt::format("{}", d);
  if (s.find_first_of(".e") == s.npos) s += ".0";
  return s;
}

bool printable(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

std::string quote(std::string_view s) {
  const char mark = s.find('\'') != s.npos && s.find('"') == s.npos ? '"' : '\'';
  std::string out(1, mark);
  while (!s.empty()) {
    const Utf8Char c = decode_utf8(s);
    if (c.code == static_cast<char32_t>(mark) || c.code == '\\') {
      out += '\\';
      out += static_cast<char>(c.code);
    } else if (c.code == '\n' || c.code == '\r' || c.code == '\t') {
      out += c.code == '\n' ? "\\n" : c.code == '\r' ? "\\r" : "\\t";
    } else if (printable(c.code)) {
      out += s.substr(0, c.bytes);
    } else {
      const auto code = static_cast<uint32_t>(c.code);
      out += code < 0x100     ? fmt::format("\\x{:02x}", code)
             : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                              : fmt::format("\\U{:08x}", code);
    }
    s.remove_prefix(c.bytes);
  }
  return out + mark;
}

std::string json_string(std::string_view s) {
  std::string out = "\"";
  for (const char c : s) {
    constexpr std::string_view kFrom = "\"\\\n\r\t\b\f", kTo = "\"\\nrtbf";
    if (const size_t at = kFrom.find(c); at != kFrom.npos) {
      out += '\\';
      out += kTo[at];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace

void Context::fail(const std::string& message) const {
  fail_data(fmt::format("[chat template] line {}: {}", line, message));
}

Value Value::list(Context& ctx, Items items, bool tuple) {
  ctx.spend(1 + static_cast<int64_t>(items.size()));
  int depth = 0;
  for (const Value& v : items) depth = std::max(depth, depth_of(ctx, v));
  Value out;
  out.v_ = std::make_shared<ListBox>(ListBox{std::move(items), tuple, checked_depth(ctx, depth)});
  return out;
}

Value Value::dict(Context& ctx, Entries entries, DictKind kind) {
  auto box = std::make_shared<DictBox>(DictBox{{}, kind, 1});
  for (auto& [key, v] : entries) box->set(ctx, key, std::move(v));
  Value out;
  out.v_ = std::move(box);
  return out;
}

const Value* DictBox::find(std::string_view key) const {
  for (const auto& [name, v] : entries) {
    if (name == key) return &v;
  }
  return nullptr;
}

void DictBox::set(Context& ctx, const std::string& key, Value v) {
  ctx.spend(1 + static_cast<int64_t>(entries.size() / 4));  // the search
  depth = std::max(depth, checked_depth(ctx, depth_of(ctx, v)));
  if (Value* old = const_cast<Value*>(find(key))) {
    *old = std::move(v);
  } else {
    entries.emplace_back(key, std::move(v));
  }
}

const ListBox* Value::as_list() const {
  const auto* p = get<std::shared_ptr<ListBox>>();
  return p != nullptr ? p->get() : nullptr;
}

const DictBox* Value::as_dict() const {
  const auto* p = get<std::shared_ptr<DictBox>>();
  return p != nullptr ? p->get() : nullptr;
}

DictBox* Value::as_namespace() const {
  const auto* p = get<std::shared_ptr<DictBox>>();
  return p != nullptr && (*p)->kind == DictKind::kNamespace ? p->get() : nullptr;
}

double Value::number() const {
  if (const int64_t* i = get<int64_t>()) return static_cast<double>(*i);
  if (const bool* b = get<bool>()) return *b ? 1 : 0;
  return *get<double>();
}

const char* Value::type_name() const {
  if (as_list() != nullptr) return as_list()->tuple ? "tuple" : "list";
  if (const DictBox* d = as_dict()) return d->kind == DictKind::kPlain ? "dict" : "namespace";
  return is_undefined()  ? "undefined"
         : is_none()     ? "None"
         : get<bool>()   ? "bool"
         : is_integer()  ? "int"
         : get<double>() ? "float"
         : string()      ? "str"
                         : "function";
}

bool truth(const Value& v) {
  if (const std::string* s = v.string()) return !s->empty();
  if (const ListBox* l = v.as_list()) return !l->items.empty();
  if (const DictBox* d = v.as_dict()) return d->kind != DictKind::kPlain || !d->entries.empty();
  if (v.is_number()) return v.number() != 0;
  return !v.is_undefined() && !v.is_none();
}

std::string to_text(Context& ctx, const Value& v) {
  if (const std::string* s = v.string()) {
    ctx.spend_text(s->size());
    return *s;
  }
  return v.is_undefined() ? std::string() : repr(ctx, v);
}

std::string repr(Context& ctx, const Value& v) {
  ctx.spend(1);
  if (const std::string* s = v.string()) {
    ctx.spend_text(s->size());
    return quote(*s);
  }
  if (v.is_undefined()) return "Undefined";
  if (v.is_none()) return "None";
  if (const bool* b = v.get<bool>()) return *b ? "True" : "False";
  if (const int64_t* i = v.get<int64_t>()) return std::to_string(*i);
  if (const double* d = v.get<double>()) return number_text(*d);
  std::string out;
  if (const ListBox* l = v.as_list()) {
    for (const Value& item : l->items) out += (out.empty() ? "" : ", ") + repr(ctx, item);
    ctx.spend_text(out.size());
    if (!l->tuple) return "[" + out + "]";
    return l->items.size() == 1 ? "(" + out + ",)" : "(" + out + ")";
  }
  if (const DictBox* d = v.as_dict(); d != nullptr && d->kind == DictKind::kPlain) {
    for (const auto& [key, item] : d->entries) {
      out += (out.empty() ? "" : ", ") + quote(key) + ": " + repr(ctx, item);
    }
    ctx.spend_text(out.size());
    return "{" + out + "}";
  }
  ctx.fail(fmt::format("a {} cannot be written as text", v.type_name()));
}

std::string to_json(Context& ctx, const Value& v, int indent, int level) {
  ctx.spend(1);
  if (const std::string* s = v.string()) {
    ctx.spend_text(s->size());
    return json_string(*s);
  }
  if (v.is_none()) return "null";
  if (const bool* b = v.get<bool>()) return *b ? "true" : "false";
  if (const double* d = v.get<double>(); d != nullptr && !std::isfinite(*d)) {
    return std::isnan(*d) ? "NaN" : *d > 0 ? "Infinity" : "-Infinity";
  }
  if (v.is_number()) return repr(ctx, v);
  const std::string inner = indent < 0 ? "" : "\n" + std::string(static_cast<size_t>(indent * (level + 1)), ' ');
  const std::string outer = indent < 0 ? "" : "\n" + std::string(static_cast<size_t>(indent * level), ' ');
  const std::string comma = indent < 0 ? ", " : ",";
  std::string out;
  if (const ListBox* l = v.as_list()) {
    if (l->items.empty()) return "[]";
    for (const Value& item : l->items)
      out += (out.empty() ? "" : comma) + inner + to_json(ctx, item, indent, level + 1);
    ctx.spend_text(out.size());
    return "[" + out + outer + "]";
  }
  if (const DictBox* d = v.as_dict(); d != nullptr && d->kind == DictKind::kPlain) {
    if (d->entries.empty()) return "{}";
    for (const auto& [key, item] : d->entries) {
      out += (out.empty() ? "" : comma) + inner + json_string(key) + ": " + to_json(ctx, item, indent, level + 1);
    }
    ctx.spend_text(out.size());
    return "{" + out + outer + "}";
  }
  ctx.fail(fmt::format("a {} cannot be written as JSON", v.type_name()));
}

bool equal(Context& ctx, const Value& a, const Value& b) {
  ctx.spend(1);
  if (a.is_integer() && b.is_integer()) return *a.get<int64_t>() == *b.get<int64_t>();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.string() != nullptr && b.string() != nullptr) return *a.string() == *b.string();
  if (a.as_list() != nullptr && b.as_list() != nullptr) {
    const ListBox &x = *a.as_list(), &y = *b.as_list();
    if (x.tuple != y.tuple || x.items.size() != y.items.size()) return false;
    return std::equal(x.items.begin(), x.items.end(), y.items.begin(),
                      [&](const Value& p, const Value& q) { return equal(ctx, p, q); });
  }
  if (a.as_dict() != nullptr && b.as_dict() != nullptr) {
    const DictBox &x = *a.as_dict(), &y = *b.as_dict();
    if (&x == &y) return true;
    if (x.kind != DictKind::kPlain || y.kind != DictKind::kPlain || x.entries.size() != y.entries.size()) return false;
    return std::ranges::all_of(x.entries, [&](const auto& e) {
      ctx.spend(static_cast<int64_t>(y.entries.size() / 4));
      const Value* other = y.find(e.first);
      return other != nullptr && equal(ctx, e.second, *other);
    });
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool less(Context& ctx, const Value& a, const Value& b) {
  ctx.spend(1);
  if (a.is_integer() && b.is_integer()) return *a.get<int64_t>() < *b.get<int64_t>();
  if (a.is_number() && b.is_number()) return a.number() < b.number();
  if (a.string() != nullptr && b.string() != nullptr) return *a.string() < *b.string();  // UTF-8 keeps the order
  if (a.as_list() != nullptr && b.as_list() != nullptr) {
    const Items &x = a.as_list()->items, &y = b.as_list()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(ctx, x[i], y[i])) return less(ctx, x[i], y[i]);
    }
    return x.size() < y.size();
  }
  ctx.fail(fmt::format("{} and {} have no order", a.type_name(), b.type_name()));
}

bool contains(Context& ctx, const Value& container, const Value& item) {
  if (const std::string* s = container.string()) {
    if (item.string() == nullptr) ctx.fail(fmt::format("a {} in a str", item.type_name()));
    ctx.spend_text(s->size());
    return s->find(*item.string()) != s->npos;
  }
  if (const DictBox* d = container.as_dict()) {
    ctx.spend(1 + static_cast<int64_t>(d->entries.size() / 4));
    return item.string() != nullptr && d->find(*item.string()) != nullptr;
  }
  return std::ranges::any_of(iterate(ctx, container), [&](const Value& v) { return equal(ctx, v, item); });
}

Items characters(Context& ctx, std::string_view s) {
  ctx.spend(static_cast<int64_t>(s.size()));
  Items out;
  while (!s.empty()) {
    const uint32_t n = decode_utf8(s).bytes;
    out.emplace_back(s.substr(0, n));
    s.remove_prefix(n);
  }
  return out;
}

Items iterate(Context& ctx, const Value& v) {
  if (v.is_undefined()) return {};
  if (const std::string* s = v.string()) return characters(ctx, *s);
  if (const ListBox* l = v.as_list()) {
    ctx.spend(static_cast<int64_t>(l->items.size()));
    return l->items;
  }
  if (const DictBox* d = v.as_dict(); d != nullptr && d->kind == DictKind::kPlain) {
    ctx.spend(static_cast<int64_t>(d->entries.size()));
    Items keys;
    for (const auto& entry : d->entries) keys.emplace_back(entry.first);
    return keys;
  }
  ctx.fail(fmt::format("a {} is not iterable", v.type_name()));
}

}  // namespace krait::text::jinja
