#include "krait/serve/cache/disk_store.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "krait/core/rng.h"
#include "krait/io/test_folder.h"
#include "krait/serve/cache/disk_format.h"
#include "krait/serve/cache/store_test.h"
#include "krait/serve/cache/test_state.h"

namespace krait::serve {
namespace {

namespace fs = std::filesystem;
using io::TestFolder;
using std::chrono::seconds;

constexpr seconds kTtl(100);

std::unique_ptr<Store> open(const TestFolder& folder, const Clock& clock, int64_t budget = 1 << 20) {
  return open_disk_store({folder.path(), budget, &clock});
}

// Runs `f` in a process of its own; its exit status (or 128 + the signal that ended it).
template <class F>
int in_child(F f) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(f());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

size_t files_in(const fs::path& folder) {
  size_t n = 0;
  for (const auto& e : fs::recursive_directory_iterator(folder)) n += e.is_regular_file() ? 1 : 0;
  return n;
}

TEST(DiskStore, DoesWhatAStoreMust) {
  const TestFolder folder;
  const TestClock clock;
  const auto store = open(folder, clock);
  check_store(*store);
  EXPECT_EQ(files_in(folder.path()), 1);  // the lock
}

TEST(DiskStore, IsThereAfterARestart) {
  const TestFolder folder;
  TestClock clock;
  {
    const auto store = open(folder, clock);
    store->put("t/a", "blob", kTtl);
    store->append("t/c/one", 0, "first", kTtl);
    clock.pass(seconds(50));
    store->append("t/c/two", 0, "x", kTtl);
    store->append("t/c/two", 1, "y", kTtl);
  }
  const auto store = open(folder, clock);
  EXPECT_EQ(store->list_logs("t/c").front().key, "t/c/two");
  EXPECT_EQ(store->stats().logs, 2);
  EXPECT_EQ(store->get("t/a").bytes, "blob");  // a use
  store->append("t/c/two", 2, "z", kTtl);
  EXPECT_EQ(store->read_log("t/c/two").records, (Records{"x", "y", "z"}));
  clock.pass(seconds(50));
  EXPECT_EQ(store->read_log("t/c/one").records, Records{});  // too old
  store->append("t/c/one", 0, "anew", kTtl);
  clock.pass(seconds(60));
  store->expire();
  EXPECT_EQ(store->stats().blobs, 0);
  EXPECT_EQ(store->stats().logs, 1);
  EXPECT_EQ(store->read_log("t/c/one").records, Records{"anew"});
  clock.pass(seconds(100));
  store->expire();
  EXPECT_EQ(files_in(folder.path()), 1);
}

// A machine that comes up in 1970 and learns the time later, and one whose clock is set back.
TEST(DiskStore, AClockThatIsSetMakesNothingOld) {
  for (const int64_t by : {1'000'000'000LL, -1'000'000'000LL}) {
    const TestFolder folder;
    TestClock clock;
    {
      const auto store = open(folder, clock);
      store->put("t/a", "blob", kTtl);
      store->append("t/c/one", 0, "first", kTtl);
      clock.pass(seconds(50));
      store->append("t/c/two", 0, "x", kTtl);
      clock.set_wall(seconds(by));
      store->expire();
      EXPECT_EQ(store->stats().logs, 2);
      EXPECT_EQ(store->stats().blobs, 1);
    }
    const auto store = open(folder, clock);
    EXPECT_EQ(store->list_logs("t/c").size(), 2u);
    clock.pass(seconds(70));  // the one is too old, as it was to be
    store->expire();
    EXPECT_EQ(store->stats().logs, 1);
    EXPECT_EQ(store->read_log("t/c/two").records, Records{"x"});
  }
}

TEST(DiskStore, OneProcessAtATime) {
  const TestFolder folder;
  const TestClock clock;
  auto store = open(folder, clock);
  EXPECT_NE(io::message_of(ErrorCode::kFailed, [&] { open(folder, clock); }).find("another process"),
            std::string::npos);
  store.reset();
  open(folder, clock);
}

TEST(DiskStore, LeasesEnd) {
  const TestFolder folder;
  TestClock clock;
  const auto store = open(folder, clock);
  const auto lease = store->lease("one", seconds(10));
  clock.pass(seconds(9));
  EXPECT_TRUE(lease->renew());
  clock.pass(seconds(10));
  EXPECT_FALSE(lease->renew());
  const auto other = store->lease("one", seconds(10));
  ASSERT_NE(other, nullptr);
  EXPECT_FALSE(lease->renew());
  EXPECT_TRUE(other->renew());
}

TEST(DiskStore, BudgetOfBlobs) {
  const TestFolder folder;
  TestClock clock;
  const std::string kilobyte(1000, 'x');
  {
    const auto store = open(folder, clock, 3500);
    for (const char* key : {"a", "b", "c"}) store->put(key, kilobyte, kTtl);
    EXPECT_TRUE(store->get("a").bytes);
    store->put("d", kilobyte, kTtl);  // b is the longest unused now
    EXPECT_FALSE(store->get("b").bytes);
    EXPECT_TRUE(store->get("a").bytes && store->get("c").bytes && store->get("d").bytes);
    EXPECT_LE(store->stats().bytes, 3500);
    store->append("log", 0, std::string(10'000, 'l'), kTtl);  // is no blob
    store->put("c", kilobyte + kilobyte, kTtl);
    EXPECT_FALSE(store->get("a").bytes);
    EXPECT_EQ(refusal([&] { store->put("e", std::string(4000, 'e'), kTtl); }), "503 store_unavailable");
    EXPECT_EQ(store->stats().errors, 1);
  }
  const auto store = open(folder, clock, 1500);  // a smaller budget from now on
  store->put("f", kilobyte, kTtl);
  EXPECT_EQ(store->stats().blobs, 1);
  EXPECT_EQ(files_in(folder.path() / "blobs"), 1);
}

// A crash may cut a log anywhere: what was complete is read, nothing else, and the log goes on behind it.
TEST(DiskStore, TornTailAtEveryByte) {
  const TestFolder folder;
  const TestClock clock;
  const Records records = {"first", "", "third record"};
  open(folder, clock)->replace_log("log", 0, records, kTtl);
  const fs::path path = folder.path() / "logs" / "log.log";
  const std::string whole = io::read_text(path);
  for (size_t n = 0; n <= whole.size(); ++n) {
    SCOPED_TRACE(n);
    folder.write("logs/log.log", whole.substr(0, n) + std::string(n % 3 == 0 ? 40 : 0, '\0'));
    fs::last_write_time(path, fs::file_time_type::clock::now());
    const auto store = open(folder, clock);
    const Store::Log log = store->read_log("log");
    size_t complete = 0, end = kFileHeader;
    for (const std::string& r : records) {
      end += kRecordHeader + r.size();
      complete += end <= n ? 1 : 0;
    }
    ASSERT_EQ(log.records, Records(records.begin(), records.begin() + static_cast<ptrdiff_t>(complete)));
    if (n % 3 != 0) {
      ASSERT_FALSE(log.corrupt);
    }
    store->append("log", static_cast<int64_t>(complete), "next", kTtl);
    Records want(records.begin(), records.begin() + static_cast<ptrdiff_t>(complete));
    want.push_back("next");
    ASSERT_EQ(store->read_log("log").records, want);
    ASSERT_EQ(store->read_log("log", std::ssize(want) - 1).records, Records{"next"});
    ASSERT_FALSE(store->read_log("log").corrupt);
  }
}

TEST(DiskStore, FlippedBitAtEveryByteOfALog) {
  const TestFolder folder;
  const TestClock clock;
  const Records records = {"first", "second", "third"};
  open(folder, clock)->replace_log("log", 0, records, kTtl);
  const std::string whole = io::read_text(folder.path() / "logs" / "log.log");
  for (size_t byte = 0; byte < whole.size(); ++byte) {
    const size_t bit = byte * 8 + byte * 5 % 8;
    SCOPED_TRACE(bit);
    std::string bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    folder.write("logs/log.log", bytes);
    const auto store = open(folder, clock);
    const Store::Log log = store->read_log("log");
    if (byte < kFileHeader) {  // says nothing of the records behind it
      ASSERT_EQ(log.records.size(), records.size());
    } else {
      ASSERT_LT(log.records.size(), records.size());
    }
    ASSERT_TRUE(std::equal(log.records.begin(), log.records.end(), records.begin()));
    ASSERT_TRUE(log.corrupt);
    ASSERT_EQ(store->stats().corrupt, 1);
    store->append("log", std::ssize(log.records), "next", kTtl);
    ASSERT_FALSE(store->read_log("log").corrupt);
  }
}

TEST(DiskStore, FlippedBitAtEveryByteOfABlob) {
  const TestFolder folder;
  const TestClock clock;
  open(folder, clock)->put("blob", "the payload", kTtl);
  const fs::path path = folder.path() / "blobs" / "blob.blob";
  const std::string whole = io::read_text(path);
  for (size_t bit = 0; bit < whole.size() * 8 + whole.size(); ++bit) {
    std::string bytes = whole;
    if (bit < whole.size() * 8) {
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    } else {
      bytes.resize(bit - whole.size() * 8);
    }
    folder.write("blobs/blob.blob", bytes);
    const auto store = open(folder, clock);
    const Store::Blob blob = store->get("blob");
    ASSERT_FALSE(blob.bytes) << bit;
    ASSERT_TRUE(blob.corrupt) << bit;
    ASSERT_FALSE(fs::exists(path)) << bit;
    ASSERT_FALSE(store->get("blob").corrupt) << bit;  // erased: absent from now on
  }
  folder.write("blobs/other.blob", whole);  // under another name
  EXPECT_TRUE(open(folder, clock)->get("other").corrupt);
}

// The disk is full: 503, what was there stays as it was, and with room again all goes on.
TEST(DiskStore, FullDisk) {
  const TestFolder folder;
  const TestClock clock;
  const int status = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const auto store = open(folder, clock);
    store->append("log", 0, "first", kTtl);
    rlimit all{};
    ::getrlimit(RLIMIT_FSIZE, &all);
    rlimit little = all;
    for (rlim_t limit = 0; limit < 200; ++limit) {
      little.rlim_cur = limit;
      ::setrlimit(RLIMIT_FSIZE, &little);
      const auto full = [](const std::string& r) { return r == "503 store_unavailable"; };
      const std::string large(300, 'x');
      bool good = full(refusal([&] { store->append("log", 1, large, kTtl); }));
      good = good && full(refusal([&] { store->append("log2", 0, large, kTtl); }));
      good = good && full(refusal([&] { store->put("blob", large, kTtl); }));
      ::setrlimit(RLIMIT_FSIZE, &all);
      good = good && store->read_log("log").records == Records{"first"} && !store->read_log("log").corrupt;
      good = good && store->log_size("log2") == 0 && !store->get("blob").bytes;
      if (!good) return 1;
    }
    store->append("log", 1, "second", kTtl);
    return store->read_log("log").records == Records{"first", "second"} && store->stats().errors == 600 ? 0 : 2;
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(open(folder, clock)->read_log("log").records, (Records{"first", "second"}));
  EXPECT_EQ(files_in(folder.path()), 2);  // no leftovers
}

// States are a cache: they go before a turn is refused.
TEST(DiskStore, ADiskFullOfBlobsTakesLogs) {
  const TestFolder folder;
  const TestClock clock;
  constexpr int kNotMounted = 77;
  const int status = in_child([&] {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=2m") != 0) {
      return kNotMounted;
    }
    const auto store = open(folder, clock, 1 << 30);
    const std::string state(300'000, 's'), turn(20'000, 't');
    for (int i = 0; i < 20; ++i) store->put("blob" + std::to_string(i), state, kTtl);
    if (!store->get("blob19").bytes || store->get("blob0").bytes) return 1;
    int64_t turns = 0;
    while (turns < 1000 && refusal([&] { store->append("log", turns, turn, kTtl); }).empty()) ++turns;
    if (turns < 90 || store->stats().blobs != 0) return 2;  // all of the disk
    if (std::ssize(store->read_log("log").records) != turns) return 3;
    return store->stats().errors == 1 ? 0 : 4;
  });
  if (status == kNotMounted) GTEST_SKIP() << "a file system of two megabytes cannot be mounted here";
  EXPECT_EQ(status, 0);
}

TEST(DiskStore, ReadOnlyFolder) {
  const TestFolder folder;
  const TestClock clock;
  open(folder, clock)->append("log", 0, "first", kTtl);
  const int status = in_child([&] {
    fs::permissions(folder.path(), fs::perms(0755));
    if (::geteuid() == 0 && ::setuid(65534) != 0) return 3;  // root may write anywhere
    if (::geteuid() != 0 && ::access(folder.path().c_str(), W_OK) == 0)
      fs::permissions(folder / "logs", fs::perms(0555));
    try {
      open(folder, clock);
    } catch (const Error& e) {
      return e.code() == ErrorCode::kFailed ? 0 : 1;
    }
    return 2;
  });
  fs::permissions(folder / "logs", fs::perms(0755));
  EXPECT_EQ(status, 0);
}

// Killed in the middle of anything: every record whose append returned is there, in order, and nothing that was never
// sent. The child tells of each acknowledged append through a pipe.
TEST(DiskStore, KilledNothingAcknowledgedIsLost) {
  const TestFolder folder;
  const auto record = [](int64_t i) {
    return std::to_string(i) + std::string(static_cast<size_t>(i * 37 % 5000), 'r');
  };
  Rng rng(1);
  int64_t acknowledged = 0;
  for (int round = 0; round < 30; ++round) {
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(pipe[0]);
      const auto store = open_disk_store({folder.path()});
      for (int64_t i = store->log_size("log");; ++i) {
        store->append("log", i, record(i), kTtl);
        if (i % 3 == 0) store->put("blob", record(i), kTtl);
        const int64_t n = i + 1;
        if (::write(pipe[1], &n, sizeof n) != sizeof n) ::_exit(1);
      }
    }
    ::close(pipe[1]);
    std::this_thread::sleep_for(std::chrono::microseconds(2000 + rng.below(30'000)));
    ::kill(child, SIGKILL);
    int64_t n = 0;
    while (::read(pipe[0], &n, sizeof n) == sizeof n) acknowledged = n;
    ::close(pipe[0]);
    ::waitpid(child, nullptr, 0);
    const auto store = open_disk_store({folder.path()});
    const Store::Log log = store->read_log("log");
    ASSERT_FALSE(log.corrupt);
    ASSERT_GE(std::ssize(log.records), acknowledged);
    ASSERT_LE(std::ssize(log.records), acknowledged + 1);
    for (int64_t i = 0; i < std::ssize(log.records); ++i) ASSERT_EQ(log.records[static_cast<size_t>(i)], record(i));
    ASSERT_FALSE(store->get("blob").corrupt);
    acknowledged = std::ssize(log.records);
  }
  EXPECT_GT(acknowledged, 0);
  EXPECT_LE(files_in(folder.path()), 3);  // no leftovers
}

TEST(DiskStore, ManyThreads) {
  const TestFolder folder;
  const TestClock clock;
  const auto store = open(folder, clock, 20'000);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const std::string own = "log" + std::to_string(t);
      for (int i = 0; i < 50; ++i) {
        store->append(own, i, std::to_string(i), kTtl);
        while (refusal([&] { store->append("shared", store->log_size("shared"), "x", kTtl); }) != "") {
        }
        store->put("blob" + std::to_string(i % 7), std::string(5000, 'b'), kTtl);
        const Store::Blob b = store->get("blob" + std::to_string((i + t) % 7));
        EXPECT_FALSE(b.corrupt);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(store->log_size("shared"), 200);
  EXPECT_EQ(store->read_log("log3").records.size(), 50);
}

}  // namespace
}  // namespace krait::serve
