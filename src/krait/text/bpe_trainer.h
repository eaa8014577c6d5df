// BpeTrainer: texts into a byte-level BPE vocabulary, written as a tokenizer.json.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "krait/core/thread_pool.h"
#include "krait/text/piece_counts.h"
#include "krait/text/split_patterns.h"

namespace krait::text {

struct BpeTrainerOptions {
  int64_t vocab_size = 8192;                          // with special tokens and the 256 bytes
  int64_t min_count = 2;                              // a pair that occurs less often is not merged
  std::vector<std::string> special{"<|endoftext|>"};  // ids 0, 1, …
  std::string pattern = "gpt2";                       // how a text is split into pieces: gpt2, llama3 or qwen2
  bool nfc = false;                                   // texts are brought to the normal form C first
};

class BpeTrainer {
 public:
  // Throws kUsage on options that make no sense. The pool must outlive the trainer.
  BpeTrainer(BpeTrainerOptions, ThreadPool&);
  ~BpeTrainer();

  // Counts the pieces of texts, each by itself; what is not UTF-8 is read as U+FFFD. The result depends neither on the
  // order of the texts nor on the number of threads.
  void add(const std::vector<std::string>& texts);
  int64_t n_bytes() const { return n_bytes_; }

  struct Result {
    std::string json;        // the content of a tokenizer.json
    int64_t vocab_size = 0;  // less than wanted where the texts have no more pairs
    int64_t n_merges = 0, n_pieces = 0;
  };
  // Throws kBadData if no text was added. To be called once.
  Result finish(const std::function<void(int64_t tokens)>& progress = {});

 private:
  void count(std::string_view text);
  std::unique_ptr<PieceCounts> take();
  void give_back(std::unique_ptr<PieceCounts>);

  BpeTrainerOptions options_;
  ThreadPool& pool_;
  PieceEnd piece_end_;
  std::string_view regex_;
  int64_t n_bytes_ = 0;
  std::mutex mutex_;
  std::vector<std::unique_ptr<PieceCounts>> counts_;  // one for each thread that counts
};

// Where text can be cut so that both parts are split into the pieces that the whole is split into, by any of the
// patterns: before a space between letters a-z, at about `bytes` or later. text.size() if there is no such place.
size_t safe_cut(std::string_view text, size_t bytes);

}  // namespace krait::text
