#include "krait/text/side_files.h"

#include <simdjson.h>
#include <algorithm>
#include <fstream>
#include <iterator>

#include "krait/core/error.h"

namespace krait::text {
namespace {

namespace fs = std::filesystem;
using simdjson::dom::element;

// A token written as a string or as {"content": …}.
std::optional<std::string> token_text(element e) {
  std::string_view s;
  if (e.is_object()) {
    if (e["content"].get(s) == simdjson::SUCCESS) return std::string(s);
    return std::nullopt;
  }
  if (e.get(s) == simdjson::SUCCESS) return std::string(s);
  return std::nullopt;
}

void add_token(std::vector<std::string>& tokens, const std::optional<std::string>& t) {
  if (t && std::ranges::find(tokens, *t) == tokens.end()) tokens.push_back(*t);
}

void read_tokens(element root, SideFiles& out) {
  element e;
  if (root["bos_token"].get(e) == simdjson::SUCCESS && !out.bos) out.bos = token_text(e);
  if (root["eos_token"].get(e) == simdjson::SUCCESS) add_token(out.eos, token_text(e));
}

void read_tokenizer_config(element root, SideFiles& out) {
  read_tokens(root, out);
  const auto flag = [&](const char* key, std::optional<bool>& to) {
    if (bool v = false; root[key].get(v) == simdjson::SUCCESS) to = v;
  };
  flag("add_bos_token", out.add_bos);
  flag("add_eos_token", out.add_eos);
  flag("legacy", out.legacy);
  flag("add_prefix_space", out.add_prefix_space);
  element chat;
  if (!out.chat_template.empty() || root["chat_template"].get(chat) != simdjson::SUCCESS) return;
  std::string_view text;
  if (chat.get(text) == simdjson::SUCCESS) {
    out.chat_template = text;
  } else if (chat.is_array()) {  // [{"name": "default", "template": …}, {"name": "tool_use", …}]
    for (const element t : chat.get_array()) {
      std::string_view name;
      if (t["name"].get(name) == simdjson::SUCCESS && name == "default" &&
          t["template"].get(text) == simdjson::SUCCESS) {
        out.chat_template = text;
      }
    }
  }
}

void read_generation_config(element root, const fs::path& file, SideFiles& out) {
  element e;
  if (root["eos_token_id"].get(e) != simdjson::SUCCESS || e.is_null()) return;
  const auto add = [&](element one) {
    int64_t id = 0;
    if (one.get(id) != simdjson::SUCCESS || id < 0 || id > INT32_MAX) {
      fail_data("[tokenizer] " + file.string() + ": eos_token_id is neither an id nor a list of ids");
    }
    out.eos_ids.push_back(static_cast<int32_t>(id));
  };
  if (e.is_array()) {
    for (const element one : e.get_array()) add(one);
  } else {
    add(e);
  }
}

}  // namespace

std::string read_whole_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(ErrorCode::kFailed, "[read] cannot open " + path.string());
  std::string all{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) throw Error(ErrorCode::kFailed, "[read] cannot read " + path.string());
  return all;
}

SideFiles read_side_files(const fs::path& folder) {
  SideFiles out;
  const auto with = [&](const char* name, const auto& read) {
    const fs::path file = folder / name;
    if (!fs::exists(file)) return;
    const simdjson::padded_string text{read_whole_file(file)};
    simdjson::dom::parser parser;
    element root;
    const auto error = parser.parse(text).get(root);
    if (error != simdjson::SUCCESS || !root.is_object()) {
      fail_data("[tokenizer] " + file.string() + " is not a JSON object" +
                (error != simdjson::SUCCESS ? ": " + std::string(simdjson::error_message(error)) : ""));
    }
    read(root, file);
  };
  if (fs::exists(folder / "chat_template.jinja")) out.chat_template = read_whole_file(folder / "chat_template.jinja");
  with("tokenizer_config.json", [&](element e, const fs::path&) { read_tokenizer_config(e, out); });
  with("special_tokens_map.json", [&](element e, const fs::path&) { read_tokens(e, out); });
  with("generation_config.json", [&](element e, const fs::path& file) { read_generation_config(e, file, out); });
  return out;
}

const std::vector<std::string_view>& turn_enders() {
  static const std::vector<std::string_view> texts = {
      "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_turn|>", "<end_of_turn>",  "<|end|>",
      "<|eot|>",    "<|return|>", "</s>",       "<|endoftext|>",   "<|end_of_text|>"};
  return texts;
}

}  // namespace krait::text
