// krait tokenize --out: texts -> token shards for training.
#pragma once
#include <string>

#include "documents.h"

namespace krait::cli {

struct CorpusArgs {
  DocumentArgs documents;
  std::string tokenizer, out, bos = "auto", eos = "auto", chat_template, learn = "answers";
  int64_t shard_tokens = int64_t{1} << 25, threads = 0;
  bool split_paragraphs = false, parse_special = false, json = false;
  bool bos_given = false, eos_given = false;
};

// Names of the options that have an effect with --out only.
const std::vector<std::string>& corpus_options();
void add_corpus_options(Command&, CorpusArgs&);
int tokenize_corpus(const CorpusArgs&);

}  // namespace krait::cli
