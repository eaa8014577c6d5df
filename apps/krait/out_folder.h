// OutFolder: a folder that a command makes: whole, or as it was before.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace krait::cli {

// Files are written into a hidden folder beside OUT, which is removed unless publish() has moved them there.
class OutFolder {
 public:
  // Throws kUsage, in the name of `command`, if OUT is a file or holds a checkpoint that may not be overwritten,
  // kFailed if it cannot be written. Touches nothing.
  OutFolder(std::string command, const std::filesystem::path& out, bool force);
  ~OutFolder();
  OutFolder(const OutFolder&) = delete;
  OutFolder& operator=(const OutFolder&) = delete;

  // Created here, with the folders above it that are missing.
  const std::filesystem::path& create();
  void publish();

 private:
  void refuse_overwriting(const std::filesystem::path& file) const;

  std::string command_;
  std::filesystem::path out_, staging_;
  bool force_;
  std::vector<std::filesystem::path> missing_;  // folders above OUT that were not there, the outermost first
};

}  // namespace krait::cli
