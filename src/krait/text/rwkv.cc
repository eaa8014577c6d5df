// RWKV "World" vocabularies: bytes to the longest entry that fits, greedily. From rwkv_vocab*.txt (a line: id, a Python
// literal of str or bytes, its length in bytes) and from GGUF (escaped texts).
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <unordered_map>

#include "krait/core/error.h"
#include "krait/text/factories.h"
#include "krait/text/piece_trie.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

constexpr int32_t kEndOfText = 0;  // no line of the file has id 0
constexpr std::string_view kEndOfTextName = "<|endoftext|>";

struct Entry {
  std::string bytes;    // empty: never produced from plain text
  std::string special;  // the text of a special token
};

class RwkvTokenizer final : public Tokenizer {
 public:
  RwkvTokenizer(std::vector<Entry> entries, std::optional<int32_t> bos, std::vector<int32_t> eos, bool add_bos,
                std::string chat_template)
      : entries_(std::move(entries)),
        bos_(bos),
        eos_(std::move(eos)),
        add_bos_(add_bos),
        template_(std::move(chat_template)) {
    std::vector<std::pair<std::string_view, int32_t>> plain, specials;
    for (size_t i = 0; i < entries_.size(); ++i) {
      const Entry& e = entries_[i];
      const auto id = static_cast<int32_t>(i);
      if (!e.special.empty() && ids_.try_emplace(e.special, id).second) specials.emplace_back(e.special, id);
      if (e.bytes.empty()) continue;
      if (!ids_.try_emplace(e.bytes, id).second) fail_data(fmt::format("[rwkv vocabulary] entry {} is there twice", i));
      plain.emplace_back(e.bytes, id);
    }
    const auto single = std::ranges::count_if(plain, [](const auto& p) { return p.first.size() == 1; });
    if (single != 256) fail_data(fmt::format("[rwkv vocabulary] {} of the 256 single bytes are there", single));
    trie_ = PieceTrie(std::move(plain));
    cut_ = PieceTrie(std::move(specials));
  }
  RwkvTokenizer(const RwkvTokenizer&) = delete;  // the indices view the entries
  RwkvTokenizer& operator=(const RwkvTokenizer&) = delete;

  std::string name() const override { return "RWKV World"; }
  int64_t vocab_size() const override { return static_cast<int64_t>(entries_.size()); }
  std::optional<int32_t> bos_id() const override { return bos_; }
  std::vector<int32_t> eos_ids() const override { return eos_; }
  std::string chat_template() const override { return template_; }

  std::vector<int32_t> encode(std::string_view text, EncodeOptions o) const override {
    std::string repaired;
    if (!is_valid_utf8(text)) {
      repaired = replace_invalid_utf8(text);
      text = repaired;
    }
    std::vector<int32_t> out;
    if (o.add_special && add_bos_) out.push_back(bos_.value());
    while (!text.empty()) {
      const size_t end = o.parse_special ? next_special(text) : text.size();
      for (std::string_view part = text.substr(0, end); !part.empty();) {
        const auto m = trie_.longest(part);
        out.push_back(m.value);
        part.remove_prefix(m.length);
      }
      text.remove_prefix(end);
      if (text.empty()) break;
      const auto special = cut_.longest(text);
      out.push_back(special.value);
      text.remove_prefix(special.length);
    }
    return out;
  }

  std::string token_bytes(int32_t id, bool) const override {
    if (id < 0 || id >= vocab_size()) return {};
    const Entry& e = entries_[static_cast<size_t>(id)];
    return e.special.empty() ? e.bytes : e.special;
  }
  bool is_special(int32_t id) const override {
    return id >= 0 && id < vocab_size() && !entries_[static_cast<size_t>(id)].special.empty();
  }
  std::optional<int32_t> token_id(std::string_view token) const override {
    const auto it = ids_.find(token);
    return it == ids_.end() ? std::nullopt : std::optional(it->second);
  }

 private:
  size_t next_special(std::string_view text) const {
    size_t i = 0;
    while (i < text.size() && cut_.longest(text.substr(i)).length == 0) ++i;
    return i;
  }

  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, int32_t> ids_;
  PieceTrie trie_, cut_;
  std::optional<int32_t> bos_;
  std::vector<int32_t> eos_;
  bool add_bos_;
  std::string template_;
};

// The bytes of a Python literal's inside: \t \n \r \\ \' \" \xHH, in a str also \uHHHH. In a str, \xHH is a character.
// False: an escape of another kind.
bool unescape(std::string_view s, bool is_bytes, std::string& out) {
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '\\') {
      out += s[i];
      continue;
    }
    if (++i == s.size()) return false;
    constexpr std::string_view kNames = "tnr\\'\"", kValues = "\t\n\r\\'\"";
    if (const size_t at = kNames.find(s[i]); at != kNames.npos) {
      out += kValues[at];
      continue;
    }
    const size_t digits = s[i] == 'x' ? 2 : s[i] == 'u' && !is_bytes ? 4 : 0;
    if (digits == 0 || s.size() - i <= digits) return false;
    uint32_t code = 0;
    const char *begin = s.data() + i + 1, *end = begin + digits;
    if (std::from_chars(begin, end, code, 16).ptr != end || (code >= 0xD800 && code < 0xE000)) return false;
    if (is_bytes) {
      out += static_cast<char>(code);
    } else {
      append_utf8(out, code);
    }
    i += digits;
  }
  return true;
}

// One line: "257 '\t\t' 2".
std::pair<int32_t, std::string> parse_line(std::string_view line, const std::string& where) {
  const size_t first = line.find(' '), last = line.rfind(' ');
  int32_t id = 0;
  size_t length = 0;
  const auto number = [](std::string_view s, auto& v) {
    return !s.empty() && std::from_chars(s.data(), s.data() + s.size(), v).ptr == s.data() + s.size();
  };
  if (first == line.npos || last <= first || !number(line.substr(0, first), id) || id < 1 ||
      !number(line.substr(last + 1), length)) {
    fail_data(fmt::format("[rwkv vocabulary] {} is not 'id literal length'", where));
  }
  std::string_view literal = line.substr(first + 1, last - first - 1);
  const bool is_bytes = literal.starts_with('b');
  if (is_bytes) literal.remove_prefix(1);
  if (literal.size() < 2 || (literal[0] != '\'' && literal[0] != '"') || literal.back() != literal[0]) {
    fail_data(fmt::format("[rwkv vocabulary] {} has no quoted text", where));
  }
  std::string bytes;
  if (!unescape(literal.substr(1, literal.size() - 2), is_bytes, bytes)) {
    fail_data(fmt::format("[rwkv vocabulary] {} has an escape that is not known", where));
  }
  if (bytes.empty() || bytes.size() != length) {
    fail_data(fmt::format("[rwkv vocabulary] {} says {} bytes and has {}", where, length, bytes.size()));
  }
  return {id, std::move(bytes)};
}

}  // namespace

std::unique_ptr<Tokenizer> make_rwkv_tokenizer(const std::filesystem::path& file, const SideFiles& side) {
  constexpr int32_t kMostIds = 1 << 24;
  const std::string text = read_whole_file(file);
  std::vector<Entry> entries = {{"", std::string(kEndOfTextName)}};
  std::string_view rest = text;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const std::string where = fmt::format("{}, line {}", file.string(), number);
    auto [id, bytes] = parse_line(line, where);
    if (id >= kMostIds) fail_data(fmt::format("[rwkv vocabulary] {} has id {}", where, id));
    if (static_cast<size_t>(id) >= entries.size()) entries.resize(static_cast<size_t>(id) + 1);
    if (!entries[static_cast<size_t>(id)].bytes.empty())
      fail_data(fmt::format("[rwkv vocabulary] {} repeats id {}", where, id));
    entries[static_cast<size_t>(id)].bytes = std::move(bytes);
  }
  std::vector<int32_t> eos = side.eos_ids;
  if (eos.empty()) eos.push_back(kEndOfText);
  return std::make_unique<RwkvTokenizer>(std::move(entries), std::nullopt, std::move(eos), false, side.chat_template);
}

std::unique_ptr<Tokenizer> make_gguf_rwkv(const GgufVocab& v) {
  if (!v.types.empty() && v.types.size() != v.tokens.size()) {
    fail_data(fmt::format("[gguf vocabulary] {} tokens, {} types", v.tokens.size(), v.types.size()));
  }
  std::vector<Entry> entries(v.tokens.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    const int32_t type = v.types.empty() ? (i == 0 ? 3 : 1) : v.types[i];
    if (type == 3) {
      entries[i].special = v.tokens[i];
    } else if (type != 5 && !unescape(v.tokens[i], true, entries[i].bytes)) {
      fail_data(fmt::format("[gguf vocabulary] token {} has an escape that is not known: {}", i, v.tokens[i]));
    }
  }
  std::vector<int32_t> eos;
  for (const auto& id : {v.eos, v.eot}) {
    if (!id || std::ranges::find(eos, *id) != eos.end()) continue;
    if (*id < 0 || static_cast<size_t>(*id) >= entries.size()) {
      fail_data(fmt::format("[gguf vocabulary] end token {} in a vocabulary of {}", *id, entries.size()));
    }
    eos.push_back(*id);
  }
  if (v.add_bos.value_or(false) && !v.bos) fail_data("[gguf vocabulary] add_bos_token without a BOS token");
  return std::make_unique<RwkvTokenizer>(std::move(entries), v.bos, std::move(eos), v.add_bos.value_or(false),
                                         v.chat_template);
}

}  // namespace krait::text
