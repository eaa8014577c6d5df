#include "krait/text/bpe_trainer.h"

#include <fmt/format.h>

#include <algorithm>

#include "krait/core/error.h"
#include "krait/text/bpe_learner.h"
#include "krait/text/byte_chars.h"
#include "krait/text/tokenizer_writer.h"
#include "krait/text/unicode.h"
#include "krait/text/utf8.h"

namespace krait::text {
namespace {

constexpr size_t kPart = 1 << 20;  // bytes that a thread takes at a time

std::string_view regex_named(const std::string& name) {
  if (name == "gpt2") return patterns::kGpt2;
  if (name == "llama3") return patterns::kLlama3;
  if (name == "qwen2") return patterns::kQwen2;
  fail_usage("[tokenizer] pattern '" + name + "' is not one of gpt2, llama3, qwen2");
}

void check(const BpeTrainerOptions& o) {
  const int64_t least = 256 + std::ssize(o.special);
  if (o.vocab_size < least || o.vocab_size > 1 << 24) {
    fail_usage(fmt::format("[tokenizer] a vocabulary of {}, wanted are {} (bytes and special tokens) to 2^24",
                           o.vocab_size, least));
  }
  if (o.min_count < 1) fail_usage(fmt::format("[tokenizer] pairs that occur at least {} times", o.min_count));
  for (size_t i = 0; i < o.special.size(); ++i) {
    const std::string& s = o.special[i];
    std::string as_byte;
    if (s.size() == 1) append_byte_chars(as_byte, s);
    if (s.size() < 2 || !is_valid_utf8(s) || std::ranges::find(o.special, s) != o.special.begin() + i) {
      fail_usage("[tokenizer] special token '" + s + "': wanted are at least two bytes of UTF-8, each token once");
    }
  }
}

void check_special(const std::vector<std::string>& special, const LearnedBpe& bpe) {
  for (const std::string& s : special) {
    const std::string bytes = bytes_of_token(s);
    if (std::ranges::find(bpe.tokens, bytes) != bpe.tokens.end()) {
      fail_data("[tokenizer] special token '" + s +
                "' is a token that the texts gave, too: choose another text for it");
    }
  }
}

}  // namespace

size_t safe_cut(std::string_view text, size_t bytes) {
  const auto letter = [&](size_t i) { return text[i] >= 'a' && text[i] <= 'z'; };
  for (size_t i = std::max<size_t>(bytes, 1); i + 1 < text.size(); ++i) {
    if (text[i] == ' ' && letter(i - 1) && letter(i + 1)) return i;
  }
  return text.size();
}

BpeTrainer::BpeTrainer(BpeTrainerOptions options, ThreadPool& pool)
    : options_(std::move(options)), pool_(pool), regex_(regex_named(options_.pattern)) {
  check(options_);
  piece_end_ = known_pattern(regex_);
}

BpeTrainer::~BpeTrainer() = default;

std::unique_ptr<PieceCounts> BpeTrainer::take() {
  const std::lock_guard lock(mutex_);
  if (counts_.empty()) return std::make_unique<PieceCounts>();
  auto counts = std::move(counts_.back());
  counts_.pop_back();
  return counts;
}

void BpeTrainer::give_back(std::unique_ptr<PieceCounts> counts) {
  const std::lock_guard lock(mutex_);
  counts_.push_back(std::move(counts));
}

void BpeTrainer::count(std::string_view text) {
  std::string valid, normal;
  if (!is_valid_utf8(text)) text = valid = replace_invalid_utf8(text);
  if (options_.nfc && !is_surely_nfc(text)) text = normal = normalize(text, NormalForm::kNfc);
  auto counts = take();
  for (size_t i = 0; i < text.size();) {
    const size_t end = piece_end_(text, i);
    counts->add(text.substr(i, end - i));
    i = end;
  }
  give_back(std::move(counts));
}

void BpeTrainer::add(const std::vector<std::string>& texts) {
  std::vector<std::string_view> parts;
  for (const std::string& text : texts) {
    n_bytes_ += std::ssize(text);
    for (std::string_view rest = text; !rest.empty();) {
      const size_t cut = safe_cut(rest, kPart);
      parts.push_back(rest.substr(0, cut));
      rest.remove_prefix(cut);
    }
  }
  pool_.parallel_for(std::ssize(parts), [&](int64_t i) { count(parts[static_cast<size_t>(i)]); });
}

BpeTrainer::Result BpeTrainer::finish(const std::function<void(int64_t)>& progress) {
  if (counts_.empty()) fail_data("[tokenizer] there is no text to learn from");
  PieceCounts all = std::move(*counts_.front());
  for (size_t i = 1; i < counts_.size(); ++i) {
    for (int64_t p = 0; p < counts_[i]->size(); ++p) all.add(counts_[i]->piece(p), counts_[i]->count(p));
  }
  counts_.clear();
  const auto n_special = std::ssize(options_.special);
  const LearnedBpe bpe = learn_bpe(
      all, {.n_tokens = options_.vocab_size - n_special, .min_count = options_.min_count, .progress = progress});
  check_special(options_.special, bpe);
  Result r;
  r.json = write_byte_level_bpe({options_.special, bpe, std::string(regex_), options_.nfc});
  r.vocab_size = n_special + std::ssize(bpe.tokens);
  r.n_merges = std::ssize(bpe.merges);
  r.n_pieces = all.size();
  return r;
}

}  // namespace krait::text
