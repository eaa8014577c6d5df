#include "tokenize_corpus.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <optional>

#include "json_out.h"
#include "krait/core/error.h"
#include "krait/data/shard_format.h"
#include "krait/data/shard_writer.h"
#include "krait/io/find_files.h"
#include "krait/text/content_hash.h"
#include "out_folder.h"
#include "progress.h"
#include "session.h"
#include "terminal.h"

namespace krait::cli {
namespace {

constexpr size_t kBatch = size_t{16} << 20;  // bytes of text that are encoded at a time

// An id, or the text of a token.
int32_t token_named(const text::Tokenizer& t, const std::string& name, const char* option) {
  int32_t id = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  if (error == std::errc() && end == name.data() + name.size() && id >= 0 && id < t.vocab_size()) return id;
  const auto found = t.token_id(name);
  if (!found) fail_usage(std::string("[tokenize] ") + option + " " + name + " is neither an id nor a token");
  return *found;
}

text::DocumentOptions document_options(const CorpusArgs& a, const text::Tokenizer& t) {
  text::DocumentOptions o;
  if (a.bos == "none") {
    o.before.emplace();
  } else if (a.bos != "auto") {
    o.before = {token_named(t, a.bos, "--bos")};
  }
  if (a.eos == "auto") {
    if (!t.eos_ids().empty()) o.after = {t.eos_ids().front()};
  } else if (a.eos != "none") {
    o.after = {token_named(t, a.eos, "--eos")};
  }
  o.around_chats = a.bos_given || a.eos_given;
  if (o.around_chats && !a.bos_given) o.before.emplace();
  if (o.around_chats && !a.eos_given) o.after.clear();
  o.split_paragraphs = a.split_paragraphs;
  o.parse_special = a.parse_special;
  o.learn_all = a.learn == "all";
  return o;
}

struct Totals {
  int64_t bytes = 0, learned = 0, chats = 0, texts = 0, instructions = 0;
};

struct Encoded {
  text::EncodedDocument ids;
  text::Document::Kind kind = text::Document::Kind::kText;
  int64_t bytes = 0;
};

Encoded encode(RawDocument raw, const CorpusArgs& a, const text::DocumentEncoder& encoder) {
  Encoded e;
  const text::Document d = parse_document(std::move(raw), a.documents);
  e.bytes = std::ssize(d.text) + std::ssize(d.prompt);
  for (const text::Message& m : d.messages) e.bytes += std::ssize(m.content);
  e.kind = d.kind;
  const bool empty = d.kind == text::Document::Kind::kText && d.text.empty();  // not a document of --eos alone
  if (!empty) e.ids = encoder.encode(d);
  return e;
}

void add(const Encoded& e, data::ShardWriter& writer, Totals& totals) {
  writer.add(e.ids.ids, e.ids.learned);
  totals.bytes += e.bytes;
  totals.learned += e.ids.learned.empty() ? std::ssize(e.ids.ids) : std::ranges::count(e.ids.learned, uint8_t{1});
  totals.chats += e.kind == text::Document::Kind::kChat ? 1 : 0;
  totals.texts += e.kind == text::Document::Kind::kText ? 1 : 0;
  totals.instructions += e.kind != text::Document::Kind::kText ? 1 : 0;
}

// Options without an effect are errors; which have one is known when all has been read.
void check_effects(const CorpusArgs& a, const Totals& t) {
  const auto unused = [](const char* option, const char* what) {
    fail_usage(std::string("[tokenize] ") + option + " has no effect: there are no " + what);
  };
  if (!a.chat_template.empty() && t.chats == 0) unused("--chat-template", "conversations");
  if (a.learn == "all" && t.instructions == 0) unused("--learn all", "conversations or prompts with completions");
  if (a.split_paragraphs && t.texts == 0) unused("--split-paragraphs", "texts");
}

Totals write_shards(const CorpusArgs& a, const text::DocumentEncoder& encoder, data::ShardWriter& writer) {
  const auto pool = make_pool(a.threads);
  DocumentReader reader(a.documents);
  ProgressBar progress("tokenizing", reader.total_bytes(), "B");
  Totals totals;
  int64_t seen = 0;
  for (;;) {
    std::vector<RawDocument> raw = reader.next(kBatch);
    if (raw.empty()) break;
    std::vector<Encoded> encoded(raw.size());
    parallel_for_throwing(*pool, std::ssize(raw), [&](int64_t i) {
      const auto n = static_cast<size_t>(i);
      encoded[n] = encode(std::move(raw[n]), a, encoder);
    });
    for (const Encoded& e : encoded) add(e, writer, totals);
    progress.advance(reader.consumed() - seen);
    seen = reader.consumed();
  }
  writer.finish();
  return totals;
}

void report(const CorpusArgs& a, const data::ShardWriter& w, const Totals& t, uint64_t hash, double seconds) {
  const auto tokens = static_cast<double>(w.n_tokens());
  if (a.json) {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
    print_json({{"documents", w.n_documents()},
                {"tokens", w.n_tokens()},
                {"learned_tokens", t.learned},
                {"shards", w.n_shards()},
                {"bytes", t.bytes},
                {"tokenizer_hash", text},
                {"seconds", seconds},
                {"tokens_per_second", tokens / seconds}});
    return;
  }
  std::printf("%s: %lld tokens in %lld documents, %lld shards; %.2f bytes a token, %.0f tok/s\n", a.out.c_str(),
              static_cast<long long>(w.n_tokens()), static_cast<long long>(w.n_documents()),
              static_cast<long long>(w.n_shards()), static_cast<double>(t.bytes) / tokens, tokens / seconds);
  if (t.learned != w.n_tokens()) {
    std::printf("to be learned: %lld tokens (answers); the others are context\n", static_cast<long long>(t.learned));
  }
}

}  // namespace

const std::vector<std::string>& corpus_options() {
  static const std::vector<std::string> names{"--shard-tokens",  "--jsonl-field",   "--jsonl", "--bos",
                                              "--eos",           "--chat-template", "--learn", "--split-paragraphs",
                                              "--parse-special", "--threads"};
  return names;
}

void add_corpus_options(Command& c, CorpusArgs& a) {
  c.option("--out", a.out, "write token shards into this folder, for training");
  c.option("--tokenizer", a.tokenizer, "a model, tokenizer.json, …; default: the shipped model's");
  c.option("--shard-tokens", a.shard_tokens, "with --out: tokens of a shard, at most; a document is never divided");
  c.option("--bos", a.bos, "with --out: before each text: an id, a token, none, or auto (what the tokenizer adds)");
  c.option("--eos", a.eos, "with --out: after each text: an id, a token, none, or auto (the first that ends a text)");
  c.flag("--split-paragraphs", a.split_paragraphs,
         "with --out: each part of a text between empty lines is encoded by itself, with an empty line after it");
  c.flag("--parse-special", a.parse_special, "with --out: special tokens written in texts become their ids");
  c.option("--chat-template", a.chat_template, "with --out: of conversations, by name; default: the tokenizer's own");
  c.choice("--learn", a.learn, {"answers", "all"},
           "with --out: of conversations and prompts with completions: what the loss counts");
  c.option("-t,--threads", a.threads, "with --out: threads; 0: all CPUs this process may use");
}

int tokenize_corpus(const CorpusArgs& a) {
  const auto start = std::chrono::steady_clock::now();
  const auto t = open_any_tokenizer(a.tokenizer.empty() ? shipped_model() : a.tokenizer);
  OutFolder folder("tokenize", a.out, false);
  if (std::filesystem::is_directory(a.out)) {
    const auto is_shard = [](const std::filesystem::path& p) { return p.extension() == data::kShardSuffix; };
    const auto there = io::find_files(a.out, false, is_shard);
    if (!there.empty()) fail_usage("[tokenize] " + there.front() + " exists already: shards would mix");
  }
  const auto named = a.chat_template.empty() ? std::nullopt : std::optional(a.chat_template);
  const text::DocumentEncoder encoder(*t, text::choose_chat_template(*t, named), document_options(a, *t));
  const uint64_t hash = text::content_hash(*t);
  const Signals signals;  // the reader looks at them: nothing is left behind
  data::ShardWriter writer(folder.create(),
                           {.vocab_size = t->vocab_size(), .tokenizer_hash = hash, .shard_tokens = a.shard_tokens});
  const Totals totals = write_shards(a, encoder, writer);
  check_effects(a, totals);
  if (writer.n_tokens() == 0) fail_data("[tokenize] the inputs have no text");
  folder.publish();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  report(a, writer, totals, hash, seconds.count());
  return 0;
}

}  // namespace krait::cli
