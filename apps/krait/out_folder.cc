#include "out_folder.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "krait/core/error.h"

namespace krait::cli {

namespace fs = std::filesystem;

OutFolder::OutFolder(std::string command, const fs::path& out, bool force)
    : command_(std::move(command)), force_(force) {
  if (out.empty()) fail_usage("[" + command_ + "] the name of the folder is empty");
  out_ = fs::absolute(out);
  if (!out_.has_filename()) out_ = out_.parent_path();  // "OUT/"
  std::error_code ec;
  if (fs::exists(out_, ec) && !fs::is_directory(out_, ec)) {
    fail_usage("[" + command_ + "] " + out.string() + " is a file; a folder is to be written");
  }
  for (const char* name : {"config.json", "model.safetensors"}) refuse_overwriting(out_ / name);
  staging_ = out_.parent_path() / ("." + out_.filename().string() + ".partial-" + std::to_string(::getpid()));
  fs::path above = out_.parent_path();
  for (; !fs::exists(above, ec) && above.has_relative_path(); above = above.parent_path()) {
    missing_.insert(missing_.begin(), above);
  }
  const bool folder = fs::is_directory(above, ec);
  if (folder && ::access(above.c_str(), W_OK | X_OK) == 0) return;
  throw Error(ErrorCode::kFailed, "[" + command_ + "] " + out.string() + " cannot be made in " + above.string() + ": " +
                                      std::strerror(folder ? errno : ENOTDIR));
}

OutFolder::~OutFolder() {
  std::error_code ignored;
  fs::remove_all(staging_, ignored);
  std::ranges::reverse(missing_);
  for (const fs::path& folder : missing_) fs::remove(folder, ignored);  // only if it is empty
}

void OutFolder::refuse_overwriting(const fs::path& file) const {
  std::error_code ignored;
  if (force_ || !fs::exists(file, ignored)) return;
  const char* hint = command_ == "convert" ? " (--force overwrites)" : "";
  fail_usage("[" + command_ + "] " + file.string() + " exists already" + hint);
}

const fs::path& OutFolder::create() {
  std::error_code ec;
  fs::create_directories(staging_, ec);
  if (ec) throw Error(ErrorCode::kFailed, "[" + command_ + "] cannot make " + staging_.string() + ": " + ec.message());
  return staging_;
}

void OutFolder::publish() {
  try {
    if (!fs::exists(out_)) return fs::rename(staging_, out_);
    for (const auto& entry : fs::directory_iterator(staging_)) refuse_overwriting(out_ / entry.path().filename());
    for (const auto& entry : fs::directory_iterator(staging_)) {
      fs::rename(entry.path(), out_ / entry.path().filename());
    }
  } catch (const fs::filesystem_error& e) {
    throw Error(ErrorCode::kFailed,
                "[" + command_ + "] cannot put the files into " + out_.string() + ": " + e.code().message());
  }
}

}  // namespace krait::cli
