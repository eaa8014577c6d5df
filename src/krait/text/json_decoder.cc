#include <functional>
#include <utility>

#include "krait/text/byte_chars.h"
#include "krait/text/json_patterns.h"
#include "krait/text/json_stages.h"

namespace krait::text {
namespace {

using Step = std::function<void(std::string& token, bool first)>;

void replace_each(std::string& s, std::string_view from, std::string_view to) {
  for (size_t i = s.find(from); i != std::string::npos; i = s.find(from, i + to.size())) s.replace(i, from.size(), to);
}

// A stream knows a token and whether it is the first: after Fuse the whole text counts as one token, so that what looks
// beyond a token's end cannot be done there and is refused.
class Reader {
 public:
  void read(JsonFields fields) {
    const std::string type = fields.text("type");
    if (type == "Sequence") {
      for (const auto e : fields.list("decoders")) read({e, fields.where()});
    } else if (type == "ByteLevel") {
      fields.ignore({"add_prefix_space", "trim_offsets", "use_regex"});
      steps_.emplace_back([](std::string& t, bool) { t = bytes_of_token(t); });
    } else if (type == "ByteFallback") {
      joins_bytes_ = true;
      steps_.emplace_back([](std::string& t, bool) {
        if (const int byte = fallback_byte(t); byte >= 0) t.assign(1, static_cast<char>(byte));
      });
    } else if (type == "Fuse") {
      fused_ = true;
    } else if (type == "Replace") {
      read_replace(fields);
    } else if (type == "Strip") {
      read_strip(fields);
    } else if (type == "Metaspace") {
      read_metaspace(fields);
    } else {
      fields.fail("decoder '" + type + "' is not supported");
    }
    fields.finish();
  }

  bool joins_bytes() const { return joins_bytes_; }

  TokenDecoder finish() {
    return [steps = std::move(steps_)](int32_t, std::string_view token, bool first) {
      std::string text(token);
      for (const Step& step : steps) step(text, first);
      return text;
    };
  }

 private:
  void read_replace(JsonFields& fields) {
    const JsonPattern pattern = read_pattern(fields);
    if (fused_ && (pattern.is_regex || pattern.text.size() > 1)) fields.fail("Replace after Fuse is not supported");
    auto replacer = std::make_shared<Replacer>(pattern, fields.text("content"));
    steps_.emplace_back([replacer](std::string& t, bool) {
      if (std::string out; replacer->apply(t, out)) t = std::move(out);
    });
  }

  void read_strip(JsonFields& fields) {
    const std::string content = fields.text("content");
    const int64_t start = fields.integer_or("start", 0), stop = fields.integer_or("stop", 0);
    if (start < 0 || start > 1 || stop != 0) {
      fields.fail("Strip with start " + std::to_string(start) + " and stop " + std::to_string(stop) +
                  " is not supported (start 0 or 1 and stop 0 are)");
    }
    if (start == 0) return;
    steps_.emplace_back([content, only_first = fused_](std::string& t, bool first) {
      if ((first || !only_first) && t.starts_with(content)) t.erase(0, content.size());
    });
  }

  void read_metaspace(JsonFields& fields) {
    const std::string replacement = fields.character("replacement");
    const bool drops_first = read_drops_first(fields);
    steps_.emplace_back([replacement, drops_first](std::string& t, bool first) {
      replace_each(t, replacement, first && drops_first ? "" : " ");
    });
  }

  static bool read_drops_first(JsonFields& fields) {
    fields.ignore({"str_rep", "split"});
    const bool add_prefix = fields.flag_or("add_prefix_space", true);
    return fields.text_or("prepend_scheme", add_prefix ? "always" : "never") != "never";
  }

  std::vector<Step> steps_;
  bool fused_ = false, joins_bytes_ = false;
};

}  // namespace

TokenDecoder read_decoder(JsonFields fields, bool& joins_bytes) {
  Reader reader;
  reader.read(std::move(fields));
  joins_bytes = reader.joins_bytes();
  return reader.finish();
}

TokenDecoder no_decoder() {
  return [](int32_t, std::string_view token, bool first) { return (first ? "" : " ") + std::string(token); };
}

}  // namespace krait::text
