// krait tokenizer train: texts -> a byte-level BPE vocabulary.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "documents.h"
#include "json_out.h"
#include "krait/core/error.h"
#include "krait/io/atomic_file.h"
#include "krait/text/bpe_trainer.h"
#include "progress.h"
#include "session.h"

namespace krait::cli {
namespace {

struct Args {
  DocumentArgs documents;
  text::BpeTrainerOptions options;
  std::vector<std::string> special;
  std::string out;
  int64_t threads = 0;
  bool no_special = false, force = false, json = false;
};

constexpr size_t kBatch = size_t{64} << 20;  // bytes of text that are in memory at a time

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Parts of a document that are texts of their own.
void add_texts(text::Document d, std::vector<std::string>& out) {
  out.push_back(std::move(d.text));
  if (!d.prompt.empty()) out.push_back(std::move(d.prompt));
  for (text::Message& m : d.messages) out.push_back(std::move(m.content));
}

void count_texts(const Args& a, ThreadPool& pool, text::BpeTrainer& trainer) {
  DocumentReader reader(a.documents);
  ProgressBar progress("reading", reader.total_bytes(), "B");
  int64_t seen = 0;
  for (;;) {
    std::vector<RawDocument> raw = reader.next(kBatch);
    if (raw.empty()) return;
    std::vector<text::Document> parsed(raw.size());
    parallel_for_throwing(pool, std::ssize(raw), [&](int64_t i) {
      const auto n = static_cast<size_t>(i);
      parsed[n] = parse_document(std::move(raw[n]), a.documents);
    });
    std::vector<std::string> texts;
    for (text::Document& d : parsed) add_texts(std::move(d), texts);
    trainer.add(texts);
    progress.advance(reader.consumed() - seen);
    seen = reader.consumed();
  }
}

int train(Args& a) {
  if (!a.force && std::filesystem::exists(a.out)) {
    fail_usage("[tokenizer] " + a.out + " exists already (--force overwrites)");
  }
  io::AtomicFile out(a.out);  // what cannot be written is told before the work
  if (a.no_special) {
    a.options.special.clear();
  } else if (!a.special.empty()) {
    a.options.special = a.special;
  }
  const auto start = std::chrono::steady_clock::now();
  const auto pool = make_pool(a.threads);
  text::BpeTrainer trainer(a.options, *pool);
  count_texts(a, *pool, trainer);
  const double read = seconds_since(start);
  ProgressBar progress("merging", a.options.vocab_size, "tokens");
  int64_t seen = 0;
  const auto result = trainer.finish([&](int64_t tokens) {
    progress.advance(tokens - seen);
    seen = tokens;
  });
  progress.finish();
  out.write(result.json);
  out.commit();
  const double total = seconds_since(start);
  if (a.json) {
    print_json({{"vocab_size", result.vocab_size},
                {"merges", result.n_merges},
                {"pieces", result.n_pieces},
                {"bytes", trainer.n_bytes()},
                {"seconds", total}});
    return 0;
  }
  std::printf("%s: %lld tokens, %lld merges, from %.1f MB of text with %lld different pieces; %.1f s (reading %.1f)\n",
              a.out.c_str(), static_cast<long long>(result.vocab_size), static_cast<long long>(result.n_merges),
              static_cast<double>(trainer.n_bytes()) / 1e6, static_cast<long long>(result.n_pieces), total, read);
  if (result.vocab_size < a.options.vocab_size) {
    std::fprintf(stderr, "krait: the texts have no more pairs that occur %lld times: the vocabulary is smaller\n",
                 static_cast<long long>(a.options.min_count));
  }
  return 0;
}

}  // namespace

void add_tokenizer(Command& root) {
  Command group = root.subcommand("tokenizer", "Make tokenizers");
  auto a = std::make_shared<Args>();
  Command c = group.subcommand("train", "Learn a byte-level BPE vocabulary from texts; writes tokenizer.json");
  c.positionals("FILES", a->documents.places,
                "texts: files, folders (their .txt, .jsonl and .ndjson), patterns; '-' is standard input; gzip and "
                "Zstandard are unpacked");
  c.option("--vocab-size", a->options.vocab_size, "tokens, with the special ones and the 256 bytes");
  c.option("--out", a->out, "the tokenizer.json to write");
  c.list("--special-token", a->special, "ids 0, 1, … in this order; default: <|endoftext|>; repeatable");
  c.flag("--no-special-tokens", a->no_special, "none");
  c.choice("--pattern", a->options.pattern, {"gpt2", "llama3", "qwen2"}, "how texts are split before merging");
  c.flag("--nfc", a->options.nfc, "the tokenizer brings texts to Unicode's normal form C first");
  c.option("--min-count", a->options.min_count, "a pair that occurs less often is not merged");
  add_document_options(c, a->documents);
  c.option("-t,--threads", a->threads, "threads; 0: all CPUs this process may use");
  c.flag("--force", a->force, "overwrite the file");
  c.flag("--json", a->json, "print what was made as JSON");
  c.footer(
      "Of pairs that occur equally often the one with the smaller ids is merged first, as the tokenizers package "
      "does.\n"
      "The result depends neither on the order of the texts nor on the number of threads.");
  c.run([a, c] {
    if (a->out.empty()) fail_usage("[tokenizer] --out FILE is wanted");
    if (a->no_special && !a->special.empty()) {
      fail_usage("[tokenizer] --special-token and --no-special-tokens contradict");
    }
    return train(*a);
  });
}

}  // namespace krait::cli
