// Files that a user names: by themselves, by a folder, by a pattern.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace krait::io {

// A folder gives its files that are `wanted` (those below it too if `recursive`; hidden ones never), a pattern
// ("data/part-*.txt") its matches, each sorted by name; anything that exists is itself. Empty: there is nothing. Throws
// kFailed if a folder cannot be read.
std::vector<std::string> find_files(const std::string& place, bool recursive,
                                    const std::function<bool(const std::filesystem::path&)>& wanted);

}  // namespace krait::io
