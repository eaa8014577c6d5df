// The text side of krait train: the tokenizer that goes into every checkpoint, and sample texts.
#pragma once
#include <memory>
#include <vector>

#include "krait/text/tokenizer.h"
#include "krait/train/setup.h"

namespace krait::cli {

class TrainText {
 public:
  // Throws kBadData if the tokenizer, or a teacher's, is not that of the shards, or it has more ids than the model, or
  // there are prompts and no tokenizer.
  TrainText(const train::TrainConfig&, const train::RunData&, const ModelSpec&);

  const std::vector<train::FileContent>& files() const { return files_; }
  // Continues the prompts; empty if there are none. This must outlive it.
  train::Trainer::WriteSamples writer(const train::TrainConfig&) const;

 private:
  std::unique_ptr<text::Tokenizer> tokenizer_;  // null if there is none
  std::vector<train::FileContent> files_;
};

}  // namespace krait::cli
