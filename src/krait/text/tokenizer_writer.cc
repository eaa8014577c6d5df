#include "krait/text/tokenizer_writer.h"

#include <fmt/format.h>

#include "krait/text/byte_chars.h"
#include "krait/text/split_patterns.h"

namespace krait::text {
namespace {

std::string quoted(std::string_view s) {
  std::string out = "\"";
  for (const char c : s) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (byte < 0x20) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out += '"';
}

std::string stages(const ByteLevelBpe& v) {
  constexpr std::string_view kByteLevel =
      R"({{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": {}}})";
  std::string before = fmt::format(fmt::runtime(kByteLevel), true);
  if (v.regex != patterns::kGpt2) {
    before = fmt::format(R"({{"type": "Sequence", "pretokenizers": [{{"type": "Split", "pattern": {{"Regex": {}}}, )"
                         R"("behavior": "Isolated", "invert": false}}, {}]}})",
                         quoted(v.regex), fmt::format(fmt::runtime(kByteLevel), false));
  }
  return fmt::format("  \"normalizer\": {},\n  \"pre_tokenizer\": {},\n  \"post_processor\": {},\n  \"decoder\": {},\n",
                     v.nfc ? R"({"type": "NFC"})" : "null", before,
                     R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true})",
                     R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})");
}

}  // namespace

std::string write_byte_level_bpe(const ByteLevelBpe& v) {
  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [";
  for (size_t i = 0; i < v.special.size(); ++i) {
    out += fmt::format(
        "{}\n    {{\"id\": {}, \"content\": {}, \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
        "\"normalized\": false, \"special\": true}}",
        i > 0 ? "," : "", i, quoted(v.special[i]));
  }
  out += v.special.empty() ? "],\n" : "\n  ],\n";
  out += stages(v);
  out +=
      "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
      "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
      "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n    \"vocab\": {";
  std::vector<std::string> tokens;
  for (const std::string& bytes : v.bpe.tokens) append_byte_chars(tokens.emplace_back(), bytes);
  size_t id = 0;
  for (const auto* part : {&v.special, static_cast<const std::vector<std::string>*>(&tokens)}) {
    for (const std::string& token : *part) {
      out += fmt::format("{}\n      {}: {}", id > 0 ? "," : "", quoted(token), id);
      ++id;
    }
  }
  out += "\n    },\n    \"merges\": [";
  for (size_t i = 0; i < v.bpe.merges.size(); ++i) {
    const LearnedMerge& m = v.bpe.merges[i];
    out += fmt::format("{}\n      [{}, {}]", i > 0 ? "," : "", quoted(tokens[static_cast<size_t>(m.left)]),
                       quoted(tokens[static_cast<size_t>(m.right)]));
  }
  return out += "\n    ]\n  }\n}\n";
}

}  // namespace krait::text
