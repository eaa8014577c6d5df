#include "krait/io/find_files.h"

#include <glob.h>

#include <algorithm>

#include "krait/core/error.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;

void collect(const fs::path& folder, bool recursive, const std::function<bool(const fs::path&)>& wanted,
             std::vector<std::string>& out) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with('.')) continue;
    if (entry.is_directory()) {
      if (recursive) collect(entry.path(), recursive, wanted, out);
    } else if (wanted(entry.path())) {
      out.push_back(entry.path().string());
    }
  }
}

std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t found{};
  const int rc = ::glob(pattern.c_str(), GLOB_ERR, nullptr, &found);
  std::vector<std::string> files(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  if (rc != 0 && rc != GLOB_NOMATCH) throw Error(ErrorCode::kFailed, "[read] cannot look for " + pattern);
  return files;
}

}  // namespace

std::vector<std::string> find_files(const std::string& place, bool recursive,
                                    const std::function<bool(const fs::path&)>& wanted) {
  std::vector<std::string> files;
  try {
    if (fs::is_directory(place)) {
      collect(place, recursive, wanted, files);
    } else if (fs::exists(place)) {
      files.push_back(place);
    } else {
      files = matches_of(place);
    }
  } catch (const fs::filesystem_error& e) {
    throw Error(ErrorCode::kFailed, "[read] " + place + ": " + e.code().message());
  }
  std::ranges::sort(files);
  return files;
}

}  // namespace krait::io
