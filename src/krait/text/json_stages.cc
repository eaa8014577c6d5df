#include "krait/text/json_stages.h"

#include <algorithm>

#include "krait/text/charsmap.h"
#include "krait/text/factories.h"
#include "krait/text/json_patterns.h"
#include "krait/text/unicode.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

void add_form(TextNormalizer& out, NormalForm form) {
  out.add([form](std::string_view in, std::string& result) {
    if (form == NormalForm::kNfc && is_surely_nfc(in)) return false;
    result = normalize(in, form);
    return true;
  });
}

void add_strip(TextNormalizer& out, bool left, bool right) {
  out.add([left, right](std::string_view in, std::string& result) {
    const auto space_at = [&](size_t i) { return is_space(decode_valid_utf8(in.data() + i).code); };
    size_t begin = 0, end = in.size();
    while (left && begin < end && space_at(begin)) begin += utf8_length(in[begin]);
    while (right && end > begin) {
      size_t last = end - 1;
      while ((static_cast<unsigned char>(in[last]) & 0xC0) == 0x80) --last;
      if (!space_at(last)) break;
      end = last;
    }
    result = in.substr(begin, end - begin);
    return true;
  });
}

SplitBehavior read_behavior(JsonFields& fields, std::string_view otherwise) {
  const std::string b = otherwise.empty() ? fields.text("behavior") : fields.text_or("behavior", otherwise);
  if (b == "Removed") return SplitBehavior::kRemoved;
  if (b == "Isolated") return SplitBehavior::kIsolated;
  if (b == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (b == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (b == "Contiguous") return SplitBehavior::kContiguous;
  fields.fail("behavior '" + b + "' is not known");
}

std::unique_ptr<PreTokenizer> read_split(JsonFields& fields) {
  const JsonPattern pattern = read_pattern(fields);
  const SplitBehavior behavior = read_behavior(fields, "");
  const bool invert = fields.flag_or("invert", false);
  if (!pattern.is_regex) return split_by_string(pattern.text, behavior, invert);
  const PieceEnd known = known_pattern(pattern.text);
  // Where a pattern covers everything, to keep the matches is to keep all pieces.
  const bool keeps_matches = behavior == SplitBehavior::kIsolated || (behavior == SplitBehavior::kRemoved && invert);
  return known != nullptr && keeps_matches ? split_by_pieces(known) : split_by_regex(pattern.text, behavior, invert);
}

// Of a Metaspace pre-tokenizer or decoder; add_prefix_space is the older way to say prepend_scheme.
Prepend read_prepend(JsonFields& fields) {
  const bool add_prefix = fields.flag_or("add_prefix_space", true);
  const std::string scheme = fields.text_or("prepend_scheme", add_prefix ? "always" : "never");
  fields.ignore({"str_rep"});
  if (!add_prefix && scheme != "never") fields.fail("add_prefix_space and prepend_scheme '" + scheme + "' contradict");
  if (scheme == "always") return Prepend::kAlways;
  if (scheme == "first") return Prepend::kFirst;
  if (scheme == "never") return Prepend::kNever;
  fields.fail("prepend_scheme '" + scheme + "' is not known");
}

// Ids of the special tokens before and after the one sequence of a template.
void read_template(JsonFields& fields, std::vector<int32_t>& before, std::vector<int32_t>& after) {
  fields.ignore({"pair"});
  JsonFields tokens = fields.object("special_tokens");
  std::vector<int32_t> front, back;
  bool seen = false;
  for (const auto item : fields.list("single")) {
    JsonFields entry(item, fields.where() + ".single");
    if (entry.find("Sequence")) {
      if (seen) fields.fail("the text occurs twice");
      seen = true;
      continue;
    }
    const std::string name = entry.object("SpecialToken").text("id");
    for (const auto id : tokens.object(name).list("ids")) {
      int64_t n = -1;
      if (id.get(n) != simdjson::SUCCESS || n < 0 || n > INT32_MAX)
        tokens.fail("'" + name + "' has an id that is none");
      (seen ? back : front).push_back(static_cast<int32_t>(n));
    }
  }
  if (!seen) fields.fail("the text does not occur in it");
  before.insert(before.begin(), front.begin(), front.end());
  after.insert(after.end(), back.begin(), back.end());
}

}  // namespace

void read_normalizer(JsonFields fields, TextNormalizer& out) {
  const std::string type = fields.text("type");
  if (type == "Sequence") {
    for (const auto e : fields.list("normalizers")) read_normalizer({e, fields.where()}, out);
  } else if (type == "NFC") {
    add_form(out, NormalForm::kNfc);
  } else if (type == "NFD") {
    add_form(out, NormalForm::kNfd);
  } else if (type == "NFKC") {
    add_form(out, NormalForm::kNfkc);
  } else if (type == "NFKD") {
    add_form(out, NormalForm::kNfkd);
  } else if (type == "Lowercase") {
    out.add([](std::string_view in, std::string& result) {
      result = to_lower(in);
      return true;
    });
  } else if (type == "Prepend") {
    out.add([text = fields.text("prepend")](std::string_view in, std::string& result) {
      if (in.empty()) return false;
      result.append(text).append(in);
      return true;
    });
  } else if (type == "Precompiled") {
    out.add([map = make_charsmap_normalizer(fields.base64("precompiled_charsmap"))](std::string_view in,
                                                                                    std::string& result) {
      result = map(in);
      return true;
    });
  } else if (type == "Replace") {
    const JsonPattern pattern = read_pattern(fields);
    auto replacer = std::make_shared<Replacer>(pattern, fields.text("content"));
    out.add([replacer](std::string_view in, std::string& result) { return replacer->apply(in, result); });
  } else if (type == "Precompiled") {
    if (fields.find("precompiled_charsmap")) {  // null: no rules
      const auto rules = make_charsmap_normalizer(decode_base64(fields.text("precompiled_charsmap")));
      out.add([rules](std::string_view in, std::string& result) {
        result = rules(in);
        return true;
      });
    }
  } else if (type == "Strip") {
    const bool left = fields.flag_or("strip_left", true);
    add_strip(out, left, fields.flag_or("strip_right", true));
  } else {
    fields.fail("normalizer '" + type + "' is not supported");
  }
  fields.finish();
}

void read_pre_tokenizer(JsonFields fields, std::vector<std::unique_ptr<PreTokenizer>>& out) {
  const std::string type = fields.text("type");
  if (type == "Sequence") {
    for (const auto e : fields.list("pretokenizers")) read_pre_tokenizer({e, fields.where()}, out);
  } else if (type == "ByteLevel") {
    const bool prefix = fields.flag_or("add_prefix_space", true);
    out.push_back(byte_level(prefix, fields.flag_or("use_regex", true) ? gpt2_piece_end : nullptr));
    fields.ignore({"trim_offsets"});
  } else if (type == "Split") {
    out.push_back(read_split(fields));
  } else if (type == "Digits") {
    const bool each = fields.flag_or("individual_digits", false);
    out.push_back(split_by_character(is_number, each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
  } else if (type == "Punctuation") {
    out.push_back(split_by_character(is_punctuation, read_behavior(fields, "Isolated")));
  } else if (type == "Whitespace") {
    out.push_back(split_words());
  } else if (type == "WhitespaceSplit") {
    out.push_back(split_by_character(is_space, SplitBehavior::kRemoved));
  } else if (type == "Metaspace") {
    const std::string replacement = fields.character("replacement");
    const Prepend prepend = read_prepend(fields);
    out.push_back(metaspace(replacement, prepend, fields.flag_or("split", true)));
  } else {
    fields.fail("pre-tokenizer '" + type + "' is not supported");
  }
  fields.finish();
}

void read_post_processor(JsonFields fields, std::vector<int32_t>& before, std::vector<int32_t>& after) {
  const std::string type = fields.text("type");
  if (type == "Sequence") {
    for (const auto e : fields.list("processors")) read_post_processor({e, fields.where()}, before, after);
  } else if (type == "ByteLevel") {
    fields.ignore({"add_prefix_space", "trim_offsets", "use_regex"});  // it moves offsets only
  } else if (type == "TemplateProcessing") {
    read_template(fields, before, after);
  } else {
    fields.fail("post-processor '" + type + "' is not supported");
  }
  fields.finish();
}

}  // namespace krait::text
