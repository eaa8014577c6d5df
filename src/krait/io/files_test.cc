// AtomicFile and MappedFile.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "krait/io/atomic_file.h"
#include "krait/io/mapped_file.h"
#include "krait/io/test_folder.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

template <class Action>
std::string failed(Action action) {
  return message_of(ErrorCode::kFailed, action);
}

mode_t mode_of(const fs::path& p) {
  struct stat st{};
  EXPECT_EQ(::stat(p.c_str(), &st), 0);
  return st.st_mode & 0777;
}

TEST(AtomicFile, OldContentUntilCommit) {
  const TestFolder dir;
  const fs::path p = dir.write("a.bin", "old");
  {
    AtomicFile f(p);
    f.write("new");
    EXPECT_EQ(read_text(p), "old");
    EXPECT_EQ(f.position(), 3u);
    f.pad_to(8);
    EXPECT_EQ(f.position(), 8u);
    f.pad_to(8);
    f.pad_to(1000);
    f.commit();
    EXPECT_THROW(f.write("x"), Error);
  }
  EXPECT_EQ(read_text(p), "new" + std::string(997, '\0'));
  EXPECT_EQ(dir.entries(), 1u);
}

TEST(AtomicFile, WithoutCommitNothingChanges) {
  const TestFolder dir;
  const fs::path p = dir.write("a.bin", "old");
  {
    AtomicFile f(p), g(dir.path() / "b.bin");
    f.write("new");
    g.write("new");
    EXPECT_LE(dir.entries(), 3u);  // written under names of their own only where files cannot be without
  }
  EXPECT_EQ(read_text(p), "old");
  EXPECT_EQ(dir.entries(), 1u);
}

// Killed amid the writing: neither the old file nor the folder shows it.
TEST(AtomicFile, AKilledWriterLeavesNothingBehind) {
  const TestFolder folder;
  write_file(folder.path() / "f", "old");
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile f(folder.path() / "f");
    f.write("half of it");
    ::_exit(0);  // no destructor runs
  }
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

TEST(AtomicFile, Permissions) {
  const TestFolder dir;
  const mode_t before = ::umask(0027);
  write_file(dir.path() / "fresh", "x");
  EXPECT_EQ(mode_of(dir.path() / "fresh"), 0640u);
  ::umask(before);
  const fs::path kept = dir.write("kept", "x");
  ::chmod(kept.c_str(), 0600);
  write_file(kept, "y");
  EXPECT_EQ(mode_of(kept), 0600u);
}

TEST(AtomicFile, WritesThroughSymbolicLinks) {
  const TestFolder dir;
  const fs::path target = dir.write("sub/target", "old");
  fs::create_symlink("sub/target", dir.path() / "link");
  write_file(dir.path() / "link", "new");
  EXPECT_TRUE(fs::is_symlink(dir.path() / "link"));
  EXPECT_EQ(read_text(target), "new");
  fs::create_symlink("nowhere", dir.path() / "dangling");
  EXPECT_THAT(failed([&] { write_file(dir.path() / "dangling", "x"); }), HasSubstr("leads nowhere"));
}

TEST(AtomicFile, RefusesWhatIsNoFile) {
  const TestFolder dir;
  EXPECT_THAT(failed([&] { write_file(dir.path(), "x"); }), HasSubstr("not a regular file"));
  EXPECT_THAT(failed([&] { write_file("/dev/null", "x"); }), HasSubstr("not a regular file"));
  EXPECT_THAT(failed([&] { write_file(dir.path() / "missing" / "a", "x"); }), HasSubstr("No such file"));
  EXPECT_EQ(dir.entries(), 0u);
}

void expect_full_disk_leaves_nothing(const fs::path& folder, const fs::path& target) {
  const std::string message = failed([&] { write_file(target, std::string(1 << 20, 'x')); });
  EXPECT_THAT(message, HasSubstr(target.string()));
  EXPECT_EQ(read_text(target), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1);
}

TEST(AtomicFile, FullDiskLeavesNothing) {
  const TestFolder dir;
  if (::mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=64k") != 0) {
    GTEST_SKIP() << "a small tmpfs cannot be mounted here: " << std::strerror(errno);
  }
  const fs::path p = dir.write("a", "old");
  expect_full_disk_leaves_nothing(dir.path(), p);
  EXPECT_EQ(::umount(dir.path().c_str()), 0);
}

TEST(AtomicFile, FileSizeLimitLeavesNothing) {
  const TestFolder dir;
  const fs::path p = dir.write("a", "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{64 << 10, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_full_disk_leaves_nothing(dir.path(), p);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
}

TEST(MappedFile, MapsContentAndOutlivesTheName) {
  const TestFolder dir;
  const fs::path p = dir.write("a", "hello");
  const auto f = MappedFile::open(p);
  fs::remove(p);
  ASSERT_EQ(f->bytes().size(), 5u);
  EXPECT_EQ(std::memcmp(f->bytes().data(), "hello", 5), 0);
  EXPECT_EQ(f->path(), p);
}

// Resident pages of [p, p + bytes), which begins on a page.
int64_t resident(const void* p, size_t bytes) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::ifstream maps("/proc/self/smaps");
  const auto want = fmt::format("{:08x}-", reinterpret_cast<uintptr_t>(p));
  bool here = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.starts_with(want)) here = true;
    int64_t kib = 0;
    if (here && std::sscanf(line.c_str(), "Rss: %ld kB", &kib) == 1) return kib * 1024 / static_cast<int64_t>(page);
  }
  ADD_FAILURE() << bytes << " bytes at " << want << " are not mapped";
  return 0;
}

TEST(MappedFile, ReleasedPagesLeaveMemoryAndKeepTheirContent) {
  const TestFolder dir;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const std::string content(64 * page, 'x');
  const auto f = MappedFile::open(dir.write("a", content));
  const std::byte* data = f->bytes().data();
  ASSERT_EQ(std::memcmp(data, content.data(), content.size()), 0);
  EXPECT_EQ(resident(data, content.size()), 64);
  MappedFile::release_pages(data + 1, 63 * page);  // the pages at the ends are not wholly inside
  EXPECT_EQ(resident(data, content.size()), 2);
  EXPECT_EQ(std::memcmp(data, content.data(), content.size()), 0);
}

TEST(MappedFile, ReleaseLeavesOtherMemoryAlone) {
  const TestFolder dir;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const auto f = MappedFile::open(dir.write("a", std::string(page, 'x')));
  std::vector<char> own(64 * page, 'y');
  MappedFile::release_pages(own.data(), own.size());
  EXPECT_EQ(std::count(own.begin(), own.end(), 'y'), static_cast<std::ptrdiff_t>(own.size()));
  MappedFile::release_pages(f->bytes().data(), 64 * page);  // runs past the file: another mapping may follow
}

TEST(MappedFile, APastTheEndVectorIsReadable) {
  const TestFolder dir;
  const auto f = MappedFile::open(dir.write("a", std::string(4096, 'x')));
  const std::byte b = f->bytes().data()[4096 + 63];
  EXPECT_EQ(b, std::byte{0});
}

TEST(MappedFile, EmptyMissingFolderPipe) {
  const TestFolder dir;
  EXPECT_TRUE(MappedFile::open(dir.write("empty", ""))->bytes().empty());
  EXPECT_THAT(failed([&] { MappedFile::open(dir.path() / "none"); }), HasSubstr("No such file"));
  EXPECT_THAT(failed([&] { MappedFile::open(dir.path()); }), HasSubstr("it is a folder"));
  ASSERT_EQ(::mkfifo((dir.path() / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(failed([&] { MappedFile::open(dir.path() / "pipe"); }), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace krait::io
