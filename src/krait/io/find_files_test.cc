#include "krait/io/find_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "krait/io/test_folder.h"

namespace krait::io {
namespace {

TEST(FindFiles, FoldersPatternsAndFiles) {
  const TestFolder folder;
  for (const char* name : {"b.txt", "a.txt", "c.log", ".d.txt", "sub/e.txt", ".hidden/f.txt"}) folder.write(name, "x");
  const auto found = [&](const std::string& place, bool recursive) {
    const auto files = find_files(place, recursive, [](const auto& p) { return p.extension() == ".txt"; });
    std::vector<std::string> names;
    for (const std::string& f : files) names.push_back(std::filesystem::relative(f, folder.path()).string());
    return names;
  };
  using testing::ElementsAre;
  EXPECT_THAT(found(folder.path().string(), false), ElementsAre("a.txt", "b.txt"));
  EXPECT_THAT(found(folder.path().string(), true), ElementsAre("a.txt", "b.txt", "sub/e.txt"));
  EXPECT_THAT(found((folder / "[bc].*").string(), false), ElementsAre("b.txt", "c.log"));
  EXPECT_THAT(found((folder / "c.log").string(), false), ElementsAre("c.log"));
  EXPECT_THAT(found((folder / "z*").string(), false), ElementsAre());
}

}  // namespace
}  // namespace krait::io
