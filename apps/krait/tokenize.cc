// krait tokenize: text -> ids, and back with --decode; --out: texts -> token shards (tokenize_corpus.h).
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "json_out.h"
#include "krait/core/error.h"
#include "session.h"
#include "terminal.h"
#include "text_file.h"
#include "tokenize_corpus.h"

namespace krait::cli {
namespace {

struct Args {
  CorpusArgs corpus;  // what it has of a single text's options, too
  std::string file = "-", prompt;
  bool decode = false, special = false, no_parse = false, pieces = false;
};

std::vector<int32_t> read_ids(const std::string& text, int64_t vocab) {
  std::vector<int32_t> ids;
  std::istringstream in(text);
  for (std::string word; in >> word;) {
    while (!word.empty() && (word.back() == ',' || word.back() == ']')) word.pop_back();
    while (!word.empty() && word.front() == '[') word.erase(0, 1);
    if (word.empty()) continue;
    size_t used = 0;
    int64_t id = -1;
    try {
      id = std::stoll(word, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used != word.size() || id < 0 || id >= vocab) {
      fail_data("[tokenize] '" + word + "' is not an id below " + std::to_string(vocab));
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

int tokenize(const Args& a, bool prompt_given) {
  const auto& places = a.corpus.documents.places;
  const std::string model = places.empty() ? a.corpus.tokenizer : places.front();
  const auto t = open_any_tokenizer(model.empty() ? shipped_model() : model);
  std::string input = prompt_given ? a.prompt : read_text(a.file);
  if (a.decode) {
    const std::string text = t->decode(read_ids(input, t->vocab_size()), false);
    std::fwrite(text.data(), 1, text.size(), stdout);
    return 0;
  }
  const std::string name = prompt_given ? "the text" : a.file == "-" ? "standard input" : a.file;
  input = require_utf8(std::move(input), name, a.corpus.documents.lossy);
  const auto ids = t->encode(input, {.add_special = a.special, .parse_special = !a.no_parse});
  if (a.corpus.json) {
    nlohmann::ordered_json j;
    j["ids"] = ids;
    print_json(j, -1);
    return 0;
  }
  const Signals signals;  // whole lines
  for (const int32_t id : ids) {
    Signals::check();
    if (std::ferror(stdout) != 0) break;
    if (a.pieces) {
      std::printf(
          "%6d  %s\n", id,
          nlohmann::json(t->token_bytes(id)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    } else {
      std::printf("%d\n", id);
    }
  }
  return 0;
}

void check_corpus(const Command& c, const Args& a) {
  if (a.corpus.documents.places.empty()) fail_usage("[tokenize] --out: files to tokenize are wanted");
  for (const char* o : {"--prompt", "--file", "--decode", "--special", "--no-parse-special", "--pieces"}) {
    if (c.given(o)) fail_usage(std::string("[tokenize] ") + o + " has no effect with --out");
  }
}

void check(const Command& c, const Args& a) {
  for (const std::string& o : corpus_options()) {
    if (c.given(o)) fail_usage("[tokenize] " + o + " has no effect without --out");
  }
  if (a.corpus.documents.places.size() > 1)
    fail_usage("[tokenize] one MODEL is wanted; files are tokenized with --out");
  if (!a.corpus.documents.places.empty() && c.given("--tokenizer")) {
    fail_usage("[tokenize] MODEL and --tokenizer both give the tokenizer");
  }
  if (c.given("--prompt") && c.given("--file")) fail_usage("[tokenize] -p and -f both give the input");
  if (a.corpus.json && a.pieces) fail_usage("[tokenize] --pieces has no effect with --json");
  for (const char* o : {"--lossy-utf8", "--special", "--no-parse-special", "--pieces", "--json"}) {
    if (a.decode && c.given(o)) fail_usage(std::string("[tokenize] ") + o + " has no effect with --decode");
  }
}

}  // namespace

void add_tokenize(Command& root) {
  auto a = std::make_shared<Args>();
  Command c =
      root.subcommand("tokenize", "Text to token ids, and back with --decode; files to token shards with --out");
  c.positionals("INPUTS", a->corpus.documents.places,
                "with --out: texts: files, folders (their .txt, .jsonl and .ndjson), patterns; '-' is standard input; "
                "gzip and Zstandard are unpacked. Without: a model, a folder, tokenizer.json, tokenizer.model, or a "
                "GGUF file; default: the shipped model",
                false);
  c.option("-f,--file", a->file, "text (with --decode: ids) to read; '-' is standard input");
  c.option("-p,--prompt", a->prompt, "text given on the command line");
  c.flag("--decode", a->decode, "the input is ids; print their text");
  c.flag("--special", a->special, "add the special tokens of the model (BOS, EOS)");
  c.flag("--no-parse-special", a->no_parse, "special tokens in the text are plain text");
  c.flag("--pieces", a->pieces, "print each token's text beside its id");
  c.flag("--json", a->corpus.json, "print {\"ids\": [...]}; with --out: what was written");
  add_corpus_options(c, a->corpus);
  add_document_options(c, a->corpus.documents);
  c.footer(
      "With --out a text file is one document and so is a line of JSONL. Of a conversation (messages) what the "
      "assistant "
      "says is\nlearned, of a prompt with its completion the completion; --bos and --eos stand around conversations "
      "only "
      "if they are given.");
  c.run([a, c] {
    if (c.given("--out")) {
      check_corpus(c, *a);
      a->corpus.bos_given = c.given("--bos");
      a->corpus.eos_given = c.given("--eos");
      return tokenize_corpus(a->corpus);
    }
    check(c, *a);
    return tokenize(*a, c.given("--prompt"));
  });
}

}  // namespace krait::cli
