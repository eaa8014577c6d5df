#include "krait/train/train_state.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "krait/core/error.h"
#include "krait/io/atomic_file.h"
#include "krait/io/mapped_file.h"
#include "krait/io/safetensors.h"
#include "krait/models/export.h"
#include "krait/models/load.h"
#include "krait/models/peft.h"
#include "krait/train/lora.h"

namespace krait::train {
namespace {

namespace fs = std::filesystem;
using io::Json;

constexpr int64_t kFormat = 1;
constexpr const char* kState = "state.json";

[[noreturn]] void fail(const fs::path& path, const std::string& doing, int error) {
  throw Error(ErrorCode::kFailed, fmt::format("[train] {}: {}: {}", path.string(), doing, std::strerror(error)));
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail(folder, "cannot open", errno);
  const int rc = ::fsync(fd), error = errno;
  ::close(fd);
  if (rc != 0 && error != EINVAL && error != EROFS) fail(folder, "cannot sync", error);  // EINVAL: has no fsync
}

// "step-00000100" -> 100, anything else -> -1.
int64_t step_of(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return -1;
  int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [at, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return error == std::errc() && at == end ? step : -1;
}

// What is in a folder as it stands; nothing where it cannot be read.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) found.push_back(it->path());
  return found;
}

Json read_json(const fs::path& path) { return Json::parse(io::MappedFile::open(path)->text(), path.string()); }

Json json_of(const Progress& p, const Identity& identity) {
  Json j = Json::object();
  j.set("format", Json(kFormat));
  j.set("step", Json(p.step));
  j.set("tokens", Json(p.tokens));
  j.set("epoch", Json(p.position.epoch));
  j.set("sample", Json(p.position.index));
  j.set("validated", Json(p.validated));
  j.set("best_loss", Json(p.best_loss));
  j.set("best_step", Json(p.best_step));
  j.set("since_best", Json(p.since_best));
  Json settings = Json::object();
  for (const auto& [key, value] : identity) settings.set(key, Json(value));
  j.set("settings", std::move(settings));
  return j;
}

Progress progress_of(const Json& j, const fs::path& checkpoint) {
  Progress p;
  p.step = j.at("step").as_integer();
  p.tokens = j.at("tokens").as_integer();
  p.position = {j.at("epoch").as_integer(), j.at("sample").as_integer()};
  p.validated = j.at("validated").as_integer();
  p.best_loss = j.at("best_loss").as_double();
  p.best_step = j.at("best_step").as_integer();
  p.since_best = j.at("since_best").as_integer();
  const auto [least, most] =
      std::minmax({p.tokens, p.position.epoch, p.position.index, p.validated, p.best_step, p.since_best, p.step});
  if (least < 0 || p.step != step_of(checkpoint.filename().string()) || std::max(p.validated, p.best_step) > p.step) {
    fail_data(fmt::format("the numbers contradict each other or the name of the folder (step {})", p.step));
  }
  return p;
}

struct Stored {
  Json state;
  Progress progress;
};

Stored read_state(const fs::path& checkpoint) try {
  Stored s{read_json(checkpoint / kState), {}};
  const Json& j = s.state;
  const int64_t format = j.at("format").as_integer();
  if (format != kFormat) {
    fail_data(fmt::format("[resume] {} is of format {}, this program reads {}", (checkpoint / kState).string(), format,
                          kFormat));
  }
  s.progress = progress_of(j, checkpoint);
  return s;
} catch (const Error& e) {
  const std::string file = (checkpoint / kState).string(), what = e.what();
  throw Error(e.code(), what.find(file) != std::string::npos ? what : "[resume] " + file + ": " + what);
}

std::vector<io::NamedTensor> optimizer_tensors(const TrainState& s) {
  std::vector<io::NamedTensor> all;
  for (const std::string& name : s.optimizer.state_names()) {
    for (size_t i = 0; i < s.model.trained().size(); ++i) {
      all.push_back({name + "." + s.model.trained()[i].spec.name, s.optimizer.state(name, i)});
    }
  }
  return all;
}

void copy_into(Tensor& to, const Tensor& from, const std::string& name, const fs::path& file) {
  if (from.shape() != to.shape() || from.dtype() != DType::kF32) {
    fail_data(fmt::format("[resume] {}: {} is {} {}, wanted is f32 {}", file.string(), name, name_of(from.dtype()),
                          from.shape().str(), to.shape().str()));
  }
  std::memcpy(to.bytes(), from.bytes(), static_cast<size_t>(to.nbytes()));
}

// Parameters as the weights file of a checkpoint holds them.
ParamStore read_params(const fs::path& file, const ModelSpec& spec) {
  const auto checkpoint = io::Checkpoint::open(file);
  return load_params(*checkpoint, find_family(*checkpoint), spec);
}

// The parameters with the averages in the place of the trained ones.
ParamStore averaged(const TrainState& s) {
  ParamStore params = s.model.params();
  for (size_t i = 0; i < s.ema.size(); ++i) params.set(s.model.trained()[i].spec.name, {s.ema[i], false});
  return params;
}

Adapter averaged_adapter(const TrainState& s) {
  Adapter a = clone(*s.model.adapter());
  auto params = adapter_params(a);
  for (size_t i = 0; i < s.ema.size(); ++i) copy_into(params[i].second, s.ema[i], params[i].first.name, "");
  return a;
}

// The adapter in the folder into `values`, those of what is trained or their averages.
void load_adapter(const fs::path& folder, const TrainState& s, const std::vector<Tensor>& values) {
  const Adapter a = read_adapter(folder, s.model.spec());
  const auto stored = adapter_params(a);
  const std::vector<Trained>& trained = s.model.trained();
  const auto same_name = [](const auto& p, const Trained& t) { return p.first.name == t.spec.name; };
  if (!std::ranges::equal(stored, trained, same_name)) {
    fail_data(fmt::format("[resume] the adapter in {} is not that of this run: it has {} tensors, wanted are {}",
                          folder.string(), stored.size(), trained.size()));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    Tensor to = values[i];
    copy_into(to, stored[i].second, stored[i].first.name, folder);
  }
}

void load_weights(const fs::path& folder, const TrainState& s) {
  if (s.model.adapter() != nullptr) {
    std::vector<Tensor> values;
    for (const Trained& t : s.model.trained()) values.push_back(t.value);
    load_adapter(folder, s, values);
    s.model.changed();
    if (!s.ema.empty()) load_adapter(folder / kAveragesFolder, s, s.ema);
    return;
  }

  const ParamStore params = read_params(folder / "model.safetensors", s.model.spec());
  for (Trained& t : s.model.trained()) {
    copy_into(t.value, params.get(t.spec.name).value, t.spec.name, folder / "model.safetensors");
  }
  s.model.changed();
  if (s.ema.empty()) return;
  const ParamStore averages = read_params(folder / "ema.safetensors", s.model.spec());
  for (size_t i = 0; i < s.ema.size(); ++i) {
    const std::string& name = s.model.trained()[i].spec.name;
    copy_into(s.ema[i], averages.get(name).value, name, folder / "ema.safetensors");
  }
}

void load_optimizer(const fs::path& file, const TrainState& s) {
  const auto stored = io::read_safetensors(file);
  auto wanted = optimizer_tensors(s);
  if (stored.size() != wanted.size()) {
    fail_data(fmt::format("[resume] {} has {} tensors, wanted are {}", file.string(), stored.size(), wanted.size()));
  }
  for (io::NamedTensor& w : wanted) {
    const auto at = stored.find(w.name);
    if (at == stored.end()) fail_data(fmt::format("[resume] {} lacks {}", file.string(), w.name));
    copy_into(w.tensor, at->second, w.name, file);
  }
}

}  // namespace

RunFolder::RunFolder(fs::path path, Identity identity, std::vector<FileContent> files)
    : path_(std::move(path)), identity_(std::move(identity)), files_(std::move(files)) {
  std::error_code ec;
  fs::create_directories(path_, ec);
  if (ec) throw Error(ErrorCode::kFailed, fmt::format("[train] {} cannot be made: {}", path_.string(), ec.message()));
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) fail(path_, "cannot open", errno);
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    ::close(lock_);
    if (error != EWOULDBLOCK) fail(path_, "cannot lock", error);
    throw Error(ErrorCode::kFailed, "[train] another process is training in " + path_.string());
  }
  remove_left_over();
  for (const fs::path& p : entries_of(path_)) {
    if (step_of(p.filename().string()) < 0 || fs::exists(p / kState)) continue;
    ::close(lock_);
    throw Error(ErrorCode::kFailed, fmt::format("[train] {} is no whole checkpoint (it has no {}): remove it, or name "
                                                "another folder",
                                                p.string(), kState));
  }
}

RunFolder::~RunFolder() { ::close(lock_); }

// What a killed process was writing or removing.
void RunFolder::remove_left_over() const {
  std::error_code ec;
  for (const fs::path& p : entries_of(path_)) {
    if (p.filename().string().starts_with(".step-")) fs::remove_all(p, ec);
  }
}

std::vector<int64_t> RunFolder::steps(const fs::path& run) {
  std::vector<int64_t> found;
  std::error_code ec;
  for (const fs::path& p : entries_of(run)) {
    const int64_t step = step_of(p.filename().string());
    if (step >= 0 && fs::exists(p / kState, ec)) found.push_back(step);
  }
  std::ranges::sort(found);
  return found;
}

fs::path RunFolder::checkpoint(const fs::path& run, int64_t step) { return run / fmt::format("step-{:08}", step); }

void RunFolder::write(const fs::path& folder, const TrainState& s) const {
  const ModelSpec& spec = s.model.spec();
  if (const Adapter* a = s.model.adapter()) {
    if (s.model.options().trainable) fail_usage("[train] a checkpoint holds an adapter or parameters, not both");
    write_adapter(folder, *a);
    if (!s.ema.empty()) write_adapter(folder / kAveragesFolder, averaged_adapter(s));
  } else {
    save_folder(spec, s.model.params(), folder, CheckpointForm::kAuto);
    if (!s.ema.empty()) save_weights(spec, averaged(s), folder / "ema.safetensors", CheckpointForm::kAuto);
  }
  io::write_safetensors(folder / "optimizer.safetensors", optimizer_tensors(s), {{"format", "pt"}});
  for (const FileContent& f : files_) io::write_file(folder / f.name, f.content);
  io::write_file(folder / kState, json_of(s.progress, identity_).dump(2) + "\n");
}

std::string RunFolder::last_known() const {
  const auto saved = steps(path_);
  if (saved.empty()) return "no earlier checkpoint is there";
  return "the last checkpoint, " + checkpoint(path_, saved.back()).string() + ", is untouched";
}

fs::path RunFolder::save(const TrainState& s) {
  const fs::path folder = checkpoint(path_, s.progress.step);
  const fs::path staging = path_ / ("." + folder.filename().string() + ".partial");
  std::error_code ec;
  if (fs::exists(folder / kState, ec)) return folder;  // the same step of the same run: the same bits
  try {
    fs::remove_all(staging);
    write(staging, s);
    fs::rename(staging, folder);
    sync_folder(path_);
  } catch (const std::exception& e) {
    fs::remove_all(staging, ec);
    throw Error(ErrorCode::kFailed,
                fmt::format("[train] step {} could not be saved; {}: {}", s.progress.step, last_known(), e.what()));
  }
  return folder;
}

void RunFolder::remove_old(int64_t keep_last, int64_t best_step) {
  auto old = steps(path_);
  old.resize(std::max<size_t>(old.size(), static_cast<size_t>(keep_last)) - static_cast<size_t>(keep_last));
  for (const int64_t step : old) {
    if (step == best_step) continue;
    const fs::path folder = checkpoint(path_, step), hidden = path_ / ("." + folder.filename().string() + ".removed");
    std::error_code ec;
    fs::rename(folder, hidden, ec);  // a kill amid the removal must not leave half a checkpoint under its name
    if (!ec) fs::remove_all(hidden, ec);
  }
}

void RunFolder::compare_identity(const Json& state, const fs::path& folder) const {
  std::string differences;
  const auto add = [&](const std::string& key, const std::string& now, const std::string& then) {
    differences += fmt::format("\n  {}: {} now, {} in the checkpoint", key, now, then);
  };
  const Json& settings = state.at("settings");
  for (const auto& [key, value] : identity_) {
    const std::string then = settings.string_or(key, "nothing");
    if (then != value) add(key, value, then);
  }
  for (const auto& [key, value] : settings.items()) {
    if (!identity_.contains(key)) add(key, "nothing", value.as_string());
  }
  if (differences.empty()) return;
  fail_data("[resume] " + folder.string() + " belongs to another run, which this one cannot go on with:" + differences);
}

void RunFolder::load(int64_t step, const TrainState& s) const {
  const fs::path folder = checkpoint(path_, step);
  const auto read = [&](const auto& part) {
    try {
      part();
    } catch (const Error& e) {
      auto earlier = steps(path_);
      std::erase_if(earlier, [&](int64_t n) { return n >= step; });
      if (earlier.empty()) throw;
      throw Error(e.code(), fmt::format("{}; an earlier checkpoint, {}, is there: without {} a run goes on from it",
                                        e.what(), checkpoint(path_, earlier.back()).string(), folder.string()));
    }
  };
  Stored stored;
  read([&] { stored = read_state(folder); });
  compare_identity(stored.state, folder);
  s.progress = stored.progress;
  read([&] {
    load_weights(folder, s);
    load_optimizer(folder / "optimizer.safetensors", s);
  });
}

Progress read_progress(const fs::path& checkpoint) { return read_state(checkpoint).progress; }

}  // namespace krait::train
