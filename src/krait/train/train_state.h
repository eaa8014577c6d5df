// TrainState: all that a run needs to go on, in folders RUN/step-00000100/ that appear whole or not at all.
#pragma once
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "krait/data/batch_source.h"
#include "krait/io/json.h"
#include "krait/train/optimizer.h"
#include "krait/train/train_model.h"

namespace krait::train {

// Folder of the averages of an adapter, in a checkpoint.
inline constexpr const char* kAveragesFolder = "ema";

// Where a run stands.
struct Progress {
  int64_t step = 0;  // made
  int64_t tokens = 0;
  data::Position position;  // of the next sample
  int64_t validated = 0;    // the last step after which the loss on held-out data was taken
  double best_loss = std::numeric_limits<double>::infinity();
  int64_t best_step = 0;   // 0: none yet
  int64_t since_best = 0;  // validations without a better one
};

// Everything that the weights of a step depend on, by name: a run is resumed only where all of it is the same.
using Identity = std::map<std::string, std::string>;

struct TrainState {
  TrainModel& model;
  Optimizer& optimizer;
  std::vector<Tensor>& ema;  // averages of the trained parameters, or empty
  Progress& progress;
};

struct FileContent {
  std::string name, content;
};

// The folder of one run, held by one process.
class RunFolder {
 public:
  // Made if need be. `files` go into every checkpoint (the tokenizer's). Throws kFailed if it cannot be made or
  // another process is training in it, or a checkpoint in it is not whole.
  RunFolder(std::filesystem::path, Identity, std::vector<FileContent> files);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Steps of the checkpoints in a folder, ascending.
  static std::vector<int64_t> steps(const std::filesystem::path& run);
  static std::filesystem::path checkpoint(const std::filesystem::path& run, int64_t step);

  // "the last checkpoint, RUN/step-00000100, is untouched", or that there is none.
  std::string last_known() const;

  // Returns the folder. Throws kFailed, saying which checkpoint is still there.
  std::filesystem::path save(const TrainState&);
  // Removes all checkpoints but the last `keep_last` and that of `best_step`.
  void remove_old(int64_t keep_last, int64_t best_step);
  // Puts the checkpoint of that step into the state. Throws kBadData with every difference from this run's identity.
  void load(int64_t step, const TrainState&) const;

 private:
  void write(const std::filesystem::path& folder, const TrainState&) const;
  void compare_identity(const io::Json& state, const std::filesystem::path& folder) const;
  void remove_left_over() const;

  std::filesystem::path path_;
  Identity identity_;
  std::vector<FileContent> files_;
  int lock_ = -1;
};

// Where a run stands, as a checkpoint's state.json says; of which export needs no more.
Progress read_progress(const std::filesystem::path& checkpoint);

}  // namespace krait::train
