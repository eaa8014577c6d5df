// tokenizer.json: the format of the tokenizers package.
#include <algorithm>

#include "krait/core/error.h"
#include "krait/text/bpe.h"
#include "krait/text/json_stages.h"

namespace krait::text {
namespace {

using Element = simdjson::dom::element;

int32_t checked_id(int64_t id, const JsonFields& where, std::string_view token) {
  if (id < 0 || id >= Vocab::kMaxIds) where.fail("'" + std::string(token) + "' has the id " + std::to_string(id));
  return static_cast<int32_t>(id);
}

Vocab read_vocab(JsonFields& model) {
  simdjson::dom::object entries;
  if (model.need("vocab").get(entries) != simdjson::SUCCESS) model.fail("'vocab' is not an object");
  Vocab vocab;
  for (const auto& [token, value] : entries) {
    int64_t n = 0;
    if (value.get(n) != simdjson::SUCCESS) model.fail("'" + std::string(token) + "' has an id that is none");
    const int32_t id = checked_id(n, model, token);
    if (!vocab.token(id).empty()) model.fail("id " + std::to_string(n) + " is given to two tokens");
    if (token.empty()) model.fail("a token is empty");
    if (!vocab.add(token, id)) model.fail("'" + std::string(token) + "' occurs twice");
  }
  return vocab;
}

Merges read_merges(JsonFields& model) {
  Merges merges;
  for (const Element e : model.list("merges")) {
    std::string_view left, right;
    simdjson::dom::array pair;
    if (e.get(left) == simdjson::SUCCESS) {  // "a b", the older form
      const size_t space = left.find(' ');
      if (space == std::string_view::npos || left.find(' ', space + 1) != std::string_view::npos) {
        model.fail("merge '" + std::string(left) + "' is not two tokens");
      }
      right = left.substr(space + 1);
      left = left.substr(0, space);
    } else if (e.get(pair) != simdjson::SUCCESS || pair.size() != 2 || pair.at(0).get(left) != simdjson::SUCCESS ||
               pair.at(1).get(right) != simdjson::SUCCESS) {
      model.fail("merge " + std::to_string(merges.size()) + " is not two tokens");
    }
    merges.emplace_back(left, right);
  }
  return merges;
}

std::unique_ptr<PieceModel> read_bpe(JsonFields& model) {
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.text_or(affix, "").empty()) model.fail("'" + std::string(affix) + "' is not supported");
  }
  if (const auto dropout = model.find("dropout")) {
    double p = 1;
    if (dropout->get(p) != simdjson::SUCCESS || p != 0) model.fail("'dropout' would make encoding random");
  }
  BpeOptions options;
  if (model.find("unk_token")) options.unk_token = model.text("unk_token");
  options.fuse_unk = model.flag_or("fuse_unk", false);
  options.byte_fallback = model.flag_or("byte_fallback", false);
  options.ignore_merges = model.flag_or("ignore_merges", false);
  Vocab vocab = read_vocab(model);
  return make_bpe(std::move(vocab), read_merges(model), options);
}

std::unique_ptr<PieceModel> read_unigram(JsonFields& model) {
  std::vector<std::pair<std::string, double>> vocab;
  for (const Element e : model.list("vocab")) {
    simdjson::dom::array entry;
    std::string_view token;
    double score = 0;
    if (e.get(entry) != simdjson::SUCCESS || entry.size() != 2 || entry.at(0).get(token) != simdjson::SUCCESS ||
        entry.at(1).get(score) != simdjson::SUCCESS) {
      model.fail("vocabulary entry " + std::to_string(vocab.size()) + " is not a token and its score");
    }
    vocab.emplace_back(token, score);
  }
  std::optional<int32_t> unk;
  if (model.find("unk_id")) unk = checked_id(model.integer("unk_id"), model, "unk_id");
  return make_json_unigram(std::move(vocab), unk, model.flag_or("byte_fallback", false));
}

std::unique_ptr<PieceModel> read_model(JsonFields model) {
  const std::string type = model.text_or("type", model.find("merges") ? "BPE" : "");
  std::unique_ptr<PieceModel> out;
  if (type == "BPE") {
    out = read_bpe(model);
  } else if (type == "Unigram") {
    out = read_unigram(model);
  } else {
    model.fail("model '" + type + "' is not supported (BPE and Unigram are)");
  }
  model.finish();
  return out;
}

std::vector<AddedToken> read_added_tokens(JsonFields& root, const PieceModel& model) {
  std::vector<AddedToken> tokens;
  for (const Element e : root.list("added_tokens")) {
    JsonFields f(e, root.where() + " added_tokens");
    AddedToken t;
    t.content = f.text("content");
    t.id = checked_id(f.integer("id"), f, t.content);
    t.special = f.flag_or("special", false);
    t.single_word = f.flag_or("single_word", false);
    t.lstrip = f.flag_or("lstrip", false);
    t.rstrip = f.flag_or("rstrip", false);
    t.normalized = f.flag_or("normalized", !t.special);
    f.finish();
    const auto in_model = model.id(t.content);
    const std::string_view there = model.token(t.id);
    if ((in_model && *in_model != t.id) || (!in_model && !there.empty())) {
      f.fail("'" + t.content + "' has id " + std::to_string(t.id) + ", in the vocabulary " +
             (in_model ? "it has " + std::to_string(*in_model) : "that is '" + std::string(there) + "'"));
    }
    if (!t.content.empty()) tokens.push_back(std::move(t));
  }
  return tokens;
}

std::optional<int32_t> find_token(const Pipeline& p, std::string_view text) {
  const auto at = std::ranges::find(p.added, text, &AddedToken::content);
  return at != p.added.end() ? std::optional(at->id) : p.model->id(text);
}

void add_once(std::vector<int32_t>& ids, int32_t id) {
  if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
}

// What begins a text and what ends one, from the configurations; failing these, by the names in use.
void find_ends(Pipeline& p, const SideFiles& side, const JsonFields& root) {
  for (const std::string& text : side.eos) {
    const auto id = find_token(p, text);
    if (!id) root.fail("eos_token '" + text + "' of the configuration is not in the vocabulary");
    add_once(p.eos, *id);
  }
  for (const int32_t id : side.eos_ids) add_once(p.eos, id);
  for (const std::string_view text : turn_enders()) {
    const auto at = std::ranges::find(p.added, text, &AddedToken::content);
    if (at != p.added.end() && at->special) add_once(p.eos, at->id);
  }
  if (side.bos) {
    p.bos = find_token(p, *side.bos);
    if (!p.bos) root.fail("bos_token '" + *side.bos + "' of the configuration is not in the vocabulary");
  } else if (!p.before.empty()) {
    p.bos = p.before.front();
  } else {
    for (const char* text : {"<s>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>"}) {
      if (!p.bos) p.bos = find_token(p, text);
    }
  }
}

std::unique_ptr<Tokenizer> read_tokenizer(JsonFields root, const SideFiles& side) {
  // Truncation and padding are how a program calls the tokenizer, not what a text is.
  root.ignore({"version", "truncation", "padding"});
  Pipeline p;
  p.chat_template = side.chat_template;
  p.model = read_model(root.object("model"));
  p.name = p.model->name() + " (tokenizer.json)";
  p.added = read_added_tokens(root, *p.model);
  if (root.find("normalizer")) read_normalizer(root.object("normalizer"), p.normalizer);
  if (root.find("pre_tokenizer")) read_pre_tokenizer(root.object("pre_tokenizer"), p.pre_tokenizers);
  if (root.find("post_processor")) read_post_processor(root.object("post_processor"), p.before, p.after);
  p.decoder = root.find("decoder") ? read_decoder(root.object("decoder"), p.joins_bytes) : no_decoder();
  root.finish();
  for (const auto* ids : {&p.before, &p.after}) {
    for (const int32_t id : *ids) {
      const bool added = std::ranges::find(p.added, id, &AddedToken::id) != p.added.end();
      if (!added && p.model->token(id).empty())
        root.fail("post_processor adds the id " + std::to_string(id) + ", no token");
    }
  }
  find_ends(p, side, root);
  return make_pipeline_tokenizer(std::move(p));
}

}  // namespace

std::unique_ptr<Tokenizer> make_json_tokenizer(const std::filesystem::path& file, const SideFiles& side) {
  return make_json_tokenizer(read_whole_file(file), file.string(), side);
}

std::unique_ptr<Tokenizer> make_json_tokenizer(std::string_view text, const std::string& what, const SideFiles& side) {
  const simdjson::padded_string padded(text);
  simdjson::dom::parser parser;
  Element root;
  if (const auto error = parser.parse(padded).get(root); error != simdjson::SUCCESS) {
    fail_data("[tokenizer] " + what + " is not JSON: " + simdjson::error_message(error));
  }
  return read_tokenizer({root, what}, side);
}

}  // namespace krait::text
