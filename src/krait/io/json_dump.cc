#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

#include "krait/core/error.h"
#include "krait/io/json.h"

namespace krait::io {
namespace {

// Bytes of the well-formed UTF-8 character at `i` (Unicode table 3-7), 0 if there is none.
size_t utf8_length(std::string_view s, size_t i) {
  const auto byte = [&](size_t k) { return i + k < s.size() ? static_cast<unsigned char>(s[i + k]) : 0u; };
  const auto tail = [&](size_t k) { return (byte(k) & 0xC0u) == 0x80u; };
  const unsigned c = byte(0), d = byte(1);
  if (c < 0x80) return 1;
  if (c >= 0xC2 && c <= 0xDF) return tail(1) ? 2 : 0;
  if (c >= 0xE0 && c <= 0xEF) {
    const bool overlong = c == 0xE0 && d < 0xA0, surrogate = c == 0xED && d > 0x9F;
    return tail(1) && tail(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (c >= 0xF0 && c <= 0xF4) {
    const bool overlong = c == 0xF0 && d < 0x90, beyond = c == 0xF4 && d > 0x8F;
    return tail(1) && tail(2) && tail(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

void append_string(std::string& out, std::string_view s) {
  out += '"';
  for (size_t i = 0; i < s.size();) {
    const char c = s[i];
    const size_t length = utf8_length(s, i);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else if (length == 0) {
      out += "\xEF\xBF\xBD";  // U+FFFD for a byte that is not UTF-8
    } else {
      out += s.substr(i, length);
    }
    i += length == 0 ? 1 : length;
  }
  out += '"';
}

// Shortest text that reads back the same, and as a double.
void append_double(std::string& out, double v) {
  if (!std::isfinite(v)) {
    out += fmt::format("{{\"__float__\": \"{}\"}}", std::isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity");
    return;
  }
  std::array<char, 40> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), v).ptr;
  const std::string_view s(text.data(), static_cast<size_t>(end - text.data()));
  out += s;
  if (s.find_first_of(".e") == std::string_view::npos) out += ".0";
}

class Writer {
 public:
  explicit Writer(int indent) : indent_(indent) {}
  std::string take() { return std::move(out_); }

  void operator()(std::monostate) { out_ += "null"; }
  void operator()(bool v) { out_ += v ? "true" : "false"; }
  void operator()(int64_t v) { out_ += std::to_string(v); }
  void operator()(double v) { append_double(out_, v); }
  void operator()(const std::string& v) { append_string(out_, v); }
  template <class List>
  void list(const List& items, char open, char close, auto&& write_item) {
    out_ += open;
    ++depth_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += indent_ ? "," : ", ";
      newline();
      write_item(items[i]);
    }
    --depth_;
    if (!items.empty()) newline();
    out_ += close;
  }
  void key(const std::string& k) {
    append_string(out_, k);
    out_ += ": ";
  }

 private:
  void newline() {
    if (indent_ > 0) out_.append("\n").append(static_cast<size_t>(indent_ * depth_), ' ');
  }
  std::string out_;
  int indent_, depth_ = 0;
};

}  // namespace

std::string Json::dump(int indent) const {
  Writer w(indent);
  const auto write = [&](const Json& j, auto&& self) -> void {
    if (const Array* a = std::get_if<Array>(&j.value_)) {
      w.list(*a, '[', ']', [&](const Json& v) { self(v, self); });
    } else if (const Object* o = std::get_if<Object>(&j.value_)) {
      w.list(*o, '{', '}', [&](const auto& item) {
        w.key(item.first);
        self(item.second, self);
      });
    } else {
      std::visit(
          [&](const auto& v) {
            if constexpr (requires { w(v); }) w(v);
          },
          j.value_);
    }
  };
  write(*this, write);
  return w.take();
}

std::string quote_name(std::string_view s) {
  constexpr size_t kMost = 200;
  if (s.size() <= kMost) return Json(std::string(s)).dump();
  size_t end = kMost;
  while (end > 0 && (static_cast<unsigned char>(s[end]) & 0xC0u) == 0x80u) --end;  // not inside a character
  return Json(std::string(s.substr(0, end)) + "…").dump();
}

}  // namespace krait::io
