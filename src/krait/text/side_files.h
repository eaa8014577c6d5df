// What stands beside a tokenizer file: tokenizer_config.json, special_tokens_map.json, generation_config.json and
// chat_template.jinja.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace krait::text {

struct SideFiles {
  std::optional<std::string> bos;  // token texts
  std::vector<std::string> eos;
  std::vector<int32_t> eos_ids;          // generation_config.json: an integer or a list
  std::optional<bool> add_bos, add_eos;  // add_bos_token, add_eos_token of tokenizer_config.json
  // Of tokenizer_config.json, for SentencePiece: whether each part between special tokens gets the leading space that a
  // text gets (legacy; transformers' default), and whether a text gets it at all.
  std::optional<bool> legacy, add_prefix_space;
  std::string chat_template;  // Jinja source; empty: none
};

// Files that are absent leave their fields empty; a malformed one throws kBadData.
SideFiles read_side_files(const std::filesystem::path& folder);

// Whole file as bytes; throws kFailed if it cannot be read.
std::string read_whole_file(const std::filesystem::path&);

// Texts of tokens that end a text or a turn in published models ("<|im_end|>", "<|eot_id|>", …): a vocabulary that has
// one as a special token stops at it, whatever its configuration says.
const std::vector<std::string_view>& turn_enders();

}  // namespace krait::text
