#include "krait/serve/http/target.h"

#include <algorithm>

#include "krait/text/utf8.h"

namespace krait::serve {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }

// "." and "..", whichever slash a file system or a proxy takes for one.
bool has_dot_segment(std::string_view path) {
  while (!path.empty()) {
    const size_t end = std::min(path.find_first_of("/\\"), path.size());
    const std::string_view segment = path.substr(0, end);
    if (segment == "." || segment == "..") return true;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return false;
}

const char* parse_path(std::string_view encoded, HttpRequest& request) {
  std::optional<std::string> path = percent_decode(encoded, false);
  if (!path) return "[http] a percent sign of the path is not followed by two hexadecimal digits";
  if (std::any_of(path->begin(), path->end(), is_control)) return "[http] the path has a control character";
  if (!text::is_valid_utf8(*path)) return "[http] the path is not UTF-8";
  if (has_dot_segment(*path)) return "[http] the path has a segment \".\" or \"..\"";
  request.path = std::move(*path);
  return nullptr;
}

const char* parse_query(std::string_view query, HttpRequest& request) {
  while (!query.empty()) {
    const std::string_view item = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(item.size() + 1, query.size()));
    if (item.empty()) continue;
    const size_t equals = std::min(item.find('='), item.size());
    std::optional<std::string> name = percent_decode(item.substr(0, equals), true);
    std::optional<std::string> value = percent_decode(item.substr(std::min(equals + 1, item.size())), true);
    if (!name || !value) return "[http] a percent sign of the query is not followed by two hexadecimal digits";
    if (name->find('\0') != name->npos || value->find('\0') != value->npos) return "[http] the query has a null byte";
    if (!text::is_valid_utf8(*name) || !text::is_valid_utf8(*value)) return "[http] the query is not UTF-8";
    request.query.emplace_back(std::move(*name), std::move(*value));
  }
  return nullptr;
}

}  // namespace

std::optional<std::string> percent_decode(std::string_view s, bool plus_is_space) {
  std::string out;
  out.reserve(s.size());
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '%') {
      const int high = i + 2 < s.size() ? hex_digit(s[i + 1]) : -1;
      const int low = i + 2 < s.size() ? hex_digit(s[i + 2]) : -1;
      if (high < 0 || low < 0) return std::nullopt;
      out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      out += plus_is_space && s[i] == '+' ? ' ' : s[i];
    }
  }
  return out;
}

const char* parse_target(std::string_view target, HttpRequest& request) {
  request.query.clear();
  if (target == "*" && request.method == "OPTIONS") {
    request.path.assign(1, '/');
    return nullptr;
  }
  if (target.empty() || target[0] != '/') return "[http] the target of the request must begin with \"/\"";
  const auto is_foreign = [](char c) { return is_control(c) || c == ' ' || static_cast<unsigned char>(c) >= 0x80; };
  if (std::any_of(target.begin(), target.end(), is_foreign)) {
    return "[http] the target of the request has a byte that must be percent-encoded";
  }
  if (target.find('#') != target.npos) return "[http] the target of the request has a fragment";
  const size_t question = std::min(target.find('?'), target.size());
  if (const char* problem = parse_path(target.substr(0, question), request)) return problem;
  return parse_query(target.substr(std::min(question + 1, target.size())), request);
}

}  // namespace krait::serve
