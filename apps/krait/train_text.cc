#include "train_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "krait/core/error.h"
#include "krait/infer/engine.h"
#include "krait/text/content_hash.h"
#include "session.h"
#include "terminal.h"
#include "tokenizer_files.h"

namespace krait::cli {
namespace {

namespace fs = std::filesystem;

// The shipped model, if the shards were made with its tokenizer; else "".
std::string shipped_tokenizer(const train::RunData& d) {
  if (!d.train_corpus) return "";
  try {
    const std::string model = shipped_model();
    return text::content_hash(*open_any_tokenizer(model)) == d.train_corpus->tokenizer_hash() ? model : "";
  } catch (const Error&) {  // not beside the program
    return "";
  }
}

// Where the tokenizer is: as [data] says, else beside the checkpoint to fine-tune. "": nowhere.
std::string place_of(const train::TrainConfig& c, const train::RunData& d) {
  if (!c.data.tokenizer.empty()) return c.data.tokenizer;
  const fs::path from = c.model.from;
  const fs::path folder = fs::is_directory(from) ? from : from.parent_path();
  const bool beside = !c.model.from.empty() && d.train_corpus && text::has_tokenizer(folder);
  return beside ? folder.string() : shipped_tokenizer(d);
}

void check_tokenizer(const text::Tokenizer& t, const std::string& place, const train::RunData& d,
                     const ModelSpec& spec) {
  const uint64_t hash = text::content_hash(t), wanted = d.train_corpus->tokenizer_hash();
  if (hash != wanted) {
    fail_data(
        fmt::format("[data] {} is not the tokenizer that the shards were made with: its content has hash {:016x}, "
                    "theirs {:016x}",
                    place, hash, wanted));
  }
  check_vocabulary(t, spec.padded_vocab_size);
}

// A teacher that reads other tokens under the same ids teaches nonsense. One without a tokenizer is taken at its word.
void check_teacher(const train::TrainConfig& c, const train::RunData& d) {
  if (c.distill.teacher.empty() || !d.train_corpus) return;
  const auto tokenizer = find_tokenizer(*io::Checkpoint::open(c.distill.teacher));
  if (!tokenizer || text::content_hash(*tokenizer) == d.train_corpus->tokenizer_hash()) return;
  fail_data(
      fmt::format("[distill] the tokenizer of {} is not the one that the shards were made with", c.distill.teacher));
}

}  // namespace

TrainText::TrainText(const train::TrainConfig& c, const train::RunData& d, const ModelSpec& spec) {
  check_teacher(c, d);
  const std::string place = place_of(c, d);
  if (!place.empty()) {
    tokenizer_ = open_any_tokenizer(place);
    check_tokenizer(*tokenizer_, place, d, spec);
    for (TokenizerFile& f : read_tokenizer_files(place)) files_.push_back({std::move(f.name), std::move(f.content)});
    return;
  }
  if (!c.sample.prompts.empty()) fail_data("[sample] prompts need a tokenizer: name it in [data] tokenizer");
  if (d.train_corpus) {
    std::fputs("note: no tokenizer is named ([data] tokenizer), so the checkpoints will not take or give text\n",
               stderr);
  }
}

train::Trainer::WriteSamples TrainText::writer(const train::TrainConfig& c) const {
  if (c.sample.prompts.empty()) return {};
  return [this, sample = c.sample, seed = c.train.seed](const Model& model, int64_t step) {
    EngineOptions options;
    options.vocab = std::min(model.vocab_size(), tokenizer_->vocab_size());
    options.cancel = &Signals::interrupted();
    Engine engine(model, options);
    std::vector<train::SampleText> texts;
    for (size_t i = 0; i < sample.prompts.size(); ++i) {
      Request r;
      r.prompt = tokenizer_->encode(sample.prompts[i]);
      r.max_new_tokens = sample.tokens;
      r.sampler.temperature = sample.temperature;
      r.sampler.seed = seed;
      r.sampler.stream = static_cast<uint64_t>(step) << 16 | i;
      r.stop_ids = tokenizer_->eos_ids();
      const Result result = engine.run(std::move(r));
      if (Signals::interrupted()) return std::vector<train::SampleText>{};
      texts.push_back({sample.prompts[i], tokenizer_->decode(result.generations.front().ids, true)});
    }
    return texts;
  };
}

}  // namespace krait::cli
