#include "krait/serve/cache/disk_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <mutex>
#include <utility>

#include "krait/core/error.h"
#include "krait/io/atomic_file.h"
#include "krait/serve/cache/disk_file.h"
#include "krait/serve/cache/disk_format.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

namespace fs = std::filesystem;
using disk::File;
using std::chrono::seconds;

// What is known of a file without opening it. Its time of modification is when it was last used or written.
struct Known {
  int64_t used = 0;  // unix seconds; of a blob also the time of its last get()
  int64_t order = 0;
  uint32_t ttl = 0;  // seconds; 0: never too old
  int64_t size = 0;
  // Of a log that was read since the start:
  int64_t count = -1;  // records; -1: not read yet
  size_t valid = 0, last = 0;
};

class DiskStore : public Store {
 public:
  explicit DiskStore(DiskStoreOptions options)
      : options_(std::move(options)), blobs_at_(options_.folder / "blobs"), logs_at_(options_.folder / "logs") {
    disk::make_folder(blobs_at_);
    disk::make_folder(logs_at_);
    const fs::path lock = options_.folder / "lock";
    lock_ = std::make_unique<File>(lock, O_RDWR | O_CREAT);
    if (::flock(lock_->fd(), LOCK_EX | LOCK_NB) != 0) {
      throw Error(ErrorCode::kFailed,
                  fmt::format("[store] {}: another process uses this folder", options_.folder.string()));
    }
    if (::access(blobs_at_.c_str(), W_OK) != 0 || ::access(logs_at_.c_str(), W_OK) != 0) {
      disk::fail(options_.folder.string(), "cannot be written to", errno);
    }
    scan(logs_at_, ".log", FileKind::kLog, logs_);
    scan(blobs_at_, ".blob", FileKind::kBlob, blobs_);
    for (const auto& [key, k] : blobs_) blob_bytes_ += k.size;
    wall_ahead_ = wall_ahead();
  }

  Blob get(const std::string& key) override {
    return guarded(key, [&]() -> Blob {
      if (!known(blobs_, key)) return {};
      const fs::path path = blob_path(key);
      const File f(path, O_RDONLY);
      if (!f.exists()) return forget_blob(key), Blob{};
      const std::string bytes = f.read(0, f.size());
      const auto payload = parse_blob(key, bytes);
      if (!payload) {
        report(fmt::format("[store] {}: damaged, and not used", path.string()));
        forget_blob(key);
        const std::lock_guard lock(mutex_);
        ++stats_.corrupt;
        return {.bytes = {}, .corrupt = true};
      }
      use(blobs_, key, path);
      return {.bytes = std::string(*payload)};
    });
  }

  void put(const std::string& key, std::string_view bytes, seconds ttl) override {
    guarded(key, [&] {
      const std::string file = blob_file(key, bytes, static_cast<uint32_t>(ttl.count()));
      make_room(key, std::ssize(file));
      const fs::path path = blob_path(key);
      with_room(file.size(), [&] { write_whole(path, file); });
      const std::lock_guard lock(mutex_);
      Known& k = blobs_[key];
      blob_bytes_ += std::ssize(file) - k.size;
      k = {now(), ++order_, static_cast<uint32_t>(ttl.count()), std::ssize(file)};
    });
  }

  void erase(const std::string& key) override {
    guarded(key, [&] { forget_blob(key); });
  }

  Log read_log(const std::string& key, int64_t from) override {
    return guarded(key, [&]() -> Log {
      const auto k = known(logs_, key);
      if (!k) return {};
      const File f(log_path(key), O_RDONLY);
      if (!f.exists()) return {};
      const size_t size = f.size();
      if (k->count > 0 && from >= k->count && size == k->valid) return {};
      if (k->count > 0 && from == k->count - 1 && size == k->valid) {  // the last record alone
        const std::string bytes = f.read(k->last, size - k->last);
        const ParsedLog p = parse_records(bytes, 0, from);
        if (p.records.size() == 1 && p.valid == bytes.size()) return {{std::string(p.records[0])}, false};
      }
      return load(key, f, from);
    });
  }

  int64_t log_size(const std::string& key) override {
    return guarded(key, [&] { return count(key); });
  }

  void append(const std::string& key, int64_t expected, std::string_view record, seconds ttl) override {
    guarded(key, [&] {
      expect(key, expected);
      const std::string bytes = log_record(expected, record);
      const fs::path path = log_path(key);
      const auto k = known(logs_, key);
      if (!k && expected > 0) refuse(0, expected);  // too old since a moment ago
      if (!k || expected == 0 || k->ttl != static_cast<uint32_t>(ttl.count())) {
        std::string file = file_header(FileKind::kLog, static_cast<uint32_t>(ttl.count()));
        if (expected > 0) file += File(path, O_RDONLY).read(kFileHeader, k->valid - kFileHeader);
        const size_t last = file.size();
        write_log(key, file + bytes, expected + 1, last, ttl);
        return;
      }
      File f(path, O_RDWR);
      if (!f.exists()) disk::fail(path.string(), "has gone", ENOENT);
      with_room(bytes.size(), [&] {
        try {
          f.cut(k->valid);  // what a crash, or an append that failed, has left
          f.write(k->valid, bytes);
          f.sync();
        } catch (...) {
          if (::ftruncate(f.fd(), static_cast<off_t>(k->valid)) != 0) unread(key);
          throw;
        }
      });
      use(logs_, key, path);
      const std::lock_guard lock(mutex_);
      Known& now_known = logs_[key];
      now_known.count = expected + 1;
      now_known.last = k->valid;
      now_known.valid = k->valid + bytes.size();
      now_known.size = static_cast<int64_t>(now_known.valid);
    });
  }

  void replace_log(const std::string& key, int64_t expected, const std::vector<std::string>& records,
                   seconds ttl) override {
    guarded(key, [&] {
      expect(key, expected);
      std::string file = file_header(FileKind::kLog, static_cast<uint32_t>(ttl.count()));
      size_t last = file.size();
      for (size_t i = 0; i < records.size(); ++i) {
        last = file.size();
        file += log_record(static_cast<int64_t>(i), records[i]);
      }
      write_log(key, file, std::ssize(records), last, ttl);
    });
  }

  void touch_log(const std::string& key, seconds ttl) override {
    guarded(key, [&] {
      const auto k = known(logs_, key);
      if (!k) return;
      const fs::path path = log_path(key);
      if (k->ttl != static_cast<uint32_t>(ttl.count())) {
        const int64_t records = count(key);
        const auto now_known = known(logs_, key);
        if (!now_known || records == 0) return;
        const std::string header = file_header(FileKind::kLog, static_cast<uint32_t>(ttl.count()));
        write_log(key, header + File(path, O_RDONLY).read(kFileHeader, now_known->valid - kFileHeader), records,
                  now_known->last, ttl);
      }
      use(logs_, key, path);
    });
  }

  void erase_log(const std::string& key) override {
    guarded(key, [&] {
      disk::remove_file(log_path(key));
      const std::lock_guard lock(mutex_);
      logs_.erase(key);
    });
  }

  std::vector<LogName> list_logs(const std::string& folder) override {
    follow_clock();
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<int64_t, LogName>> found;
    const std::string begin = folder + "/";
    for (auto it = logs_.lower_bound(begin); it != logs_.end() && it->first.starts_with(begin); ++it) {
      if (it->first.find('/', begin.size()) != std::string::npos || too_old(it->second)) continue;
      found.push_back({it->second.order, {it->first, it->second.used}});
    }
    std::ranges::sort(found, [](const auto& a, const auto& b) { return a.first > b.first; });
    std::vector<LogName> names;
    for (auto& [order, name] : found) names.push_back(std::move(name));
    return names;
  }

  std::unique_ptr<Store::Lease> lease(const std::string& name, std::chrono::milliseconds time) override;

  void expire() override {
    follow_clock();
    std::vector<std::string> old_logs, old_blobs;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [key, k] : logs_) {
        if (too_old(k)) old_logs.push_back(key);
      }
      for (const auto& [key, k] : blobs_) {
        if (too_old(k)) old_blobs.push_back(key);
      }
    }
    for (const std::string& key : old_logs) {
      guarded(key, [&] { (void)known(logs_, key); });
    }
    for (const std::string& key : old_blobs) {
      guarded(key, [&] { (void)known(blobs_, key); });
    }
  }

  Stats stats() override {
    const std::lock_guard lock(mutex_);
    Stats s = stats_;
    s.blobs = std::ssize(blobs_);
    s.logs = std::ssize(logs_);
    s.bytes = blob_bytes_;
    for (const auto& [key, k] : logs_) s.bytes += k.size;
    return s;
  }

 private:
  using Table = std::map<std::string, Known>;
  static constexpr int64_t kSet = 60;  // seconds; a clock that is merely slewed drifts less between two looks
  struct Holder {
    uint64_t token = 0;
    std::chrono::nanoseconds until{};
  };
  class DiskLease;

  int64_t now() const { return std::chrono::duration_cast<seconds>(options_.clock->wall().time_since_epoch()).count(); }
  // Seconds that the wall clock is ahead of one that nobody sets.
  int64_t wall_ahead() const { return now() - std::chrono::duration_cast<seconds>(options_.clock->steady()).count(); }
  bool too_old(const Known& k) const { return k.ttl > 0 && k.used + k.ttl <= now(); }
  fs::path log_path(const std::string& key) const { return logs_at_ / (key + ".log"); }
  fs::path blob_path(const std::string& key) const { return blobs_at_ / (key + ".blob"); }

  // Where the wall clock is set, times of use are set with it: else all of them are too old at once, and go.
  void follow_clock() {
    std::vector<std::pair<fs::path, int64_t>> moved;
    int64_t set_by = 0;
    {
      const std::lock_guard lock(mutex_);
      set_by = wall_ahead() - std::exchange(wall_ahead_, wall_ahead());
      if (std::abs(set_by) < kSet) return;
      for (auto& [key, k] : logs_) moved.emplace_back(log_path(key), k.used += set_by);
      for (auto& [key, k] : blobs_) moved.emplace_back(blob_path(key), k.used += set_by);
    }
    report(fmt::format("[store] the clock was set by {} s: times of use are set with it", set_by));
    for (const auto& [path, used] : moved) disk::set_time(path, used);
  }

  // One operation on a key at a time; failures of the file system become 503, their text is kept for us.
  template <class F>
  auto guarded(const std::string& key, F operation) -> decltype(operation()) {
    check_store_key(key);
    follow_clock();
    const std::lock_guard lock(keys_[std::hash<std::string>{}(key) % keys_.size()]);
    try {
      return operation();
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kFailed) throw;
      report(e.what());
      const std::lock_guard table(mutex_);
      ++stats_.errors;
      stats_.last_error = e.what();
    }
    throw ServeError(503, "store_unavailable", "[store] the disk cannot be read or written now").after(1);
  }

  // Null: there is none, or it is too old (and goes now).
  std::optional<Known> known(Table& table, const std::string& key) {
    std::unique_lock lock(mutex_);
    const auto it = table.find(key);
    if (it == table.end()) return {};
    if (!too_old(it->second)) return it->second;
    if (&table == &blobs_) blob_bytes_ -= it->second.size;
    table.erase(it);
    lock.unlock();
    disk::remove_file(&table == &blobs_ ? blob_path(key) : log_path(key));
    return {};
  }

  void use(Table& table, const std::string& key, const fs::path& path) {
    const int64_t t = now();
    disk::set_time(path, t);
    const std::lock_guard lock(mutex_);
    const auto it = table.find(key);
    if (it == table.end()) return;
    it->second.used = t;
    it->second.order = ++order_;
  }

  void report(const std::string& what) const {
    if (options_.report) options_.report(what);
  }

  // Whether writing `bytes` can have failed because the disk has no room.
  bool is_full(size_t bytes) const {
    constexpr uint64_t kSlack = 1 << 20;  // for what a file system needs beside the bytes
    struct statvfs s{};
    if (::statvfs(options_.folder.c_str(), &s) != 0) return false;
    return uint64_t{s.f_bavail} * s.f_frsize < bytes + kSlack || (s.f_files > 0 && s.f_favail == 0);
  }

  template <class F>
  void with_room(size_t bytes, F write) {
    while (true) {
      try {
        return write();
      } catch (const Error&) {
        if (!is_full(bytes) || !drop_oldest_blob("")) throw;
      }
    }
  }

  void write_whole(const fs::path& path, const std::string& bytes) {
    disk::make_folder(path.parent_path());
    io::AtomicFile f(path);
    f.write(bytes);
    f.commit();
    disk::set_time(path, now());
  }

  void write_log(const std::string& key, const std::string& bytes, int64_t records, size_t last, seconds ttl) {
    with_room(bytes.size(), [&] { write_whole(log_path(key), bytes); });
    const std::lock_guard lock(mutex_);
    logs_[key] = {now(), ++order_, static_cast<uint32_t>(ttl.count()), std::ssize(bytes), records, bytes.size(), last};
  }

  void forget_blob(const std::string& key) {
    disk::remove_file(blob_path(key));
    const std::lock_guard lock(mutex_);
    const auto it = blobs_.find(key);
    if (it == blobs_.end()) return;
    blob_bytes_ -= it->second.size;
    blobs_.erase(it);
  }

  void make_room(const std::string& key, int64_t bytes) {
    if (bytes > options_.max_blob_bytes) {
      throw Error(ErrorCode::kFailed,
                  fmt::format("[store] a blob of {} bytes, the folder's budget is {}", bytes, options_.max_blob_bytes));
    }
    const auto fits = [&] {
      const std::lock_guard lock(mutex_);
      const auto old = blobs_.find(key);
      const int64_t freed = old == blobs_.end() ? 0 : old->second.size;
      return blob_bytes_ - freed + bytes <= options_.max_blob_bytes;
    };
    while (!fits()) drop_oldest_blob(key);
  }

  // The longest unused one but for `spared`. False: there is none.
  bool drop_oldest_blob(const std::string& spared) {
    std::string oldest;
    {
      const std::lock_guard lock(mutex_);
      int64_t least = INT64_MAX;
      for (const auto& [name, k] : blobs_) {
        if (name != spared && k.order < least) {
          least = k.order;
          oldest = name;
        }
      }
      if (oldest.empty()) return false;
      blob_bytes_ -= blobs_.at(oldest).size;
      blobs_.erase(oldest);
    }
    disk::remove_file(blob_path(oldest));
    return true;
  }

  void unread(const std::string& key) {
    const std::lock_guard lock(mutex_);
    if (const auto it = logs_.find(key); it != logs_.end()) it->second.count = -1;
  }

  Log load(const std::string& key, const File& f, int64_t from) {
    const std::string bytes = f.read(0, f.size());
    const ParsedLog p = parse_log(bytes);
    Log log;
    log.corrupt = p.corrupt;
    if (p.corrupt) {
      report(fmt::format("[store] {}: damaged; {} records are good", log_path(key).string(), p.records.size()));
    }
    for (size_t i = static_cast<size_t>(from); i < p.records.size(); ++i) log.records.emplace_back(p.records[i]);
    const std::lock_guard lock(mutex_);
    if (p.corrupt) ++stats_.corrupt;
    Known& k = logs_[key];
    k.count = std::ssize(p.records);
    k.valid = p.valid;
    k.last = p.last;
    return log;
  }

  int64_t count(const std::string& key) {
    auto k = known(logs_, key);
    if (k && k->count < 0) {
      const File f(log_path(key), O_RDONLY);
      if (!f.exists()) return 0;
      load(key, f, 0);
      k = known(logs_, key);
    }
    return k ? k->count : 0;
  }

  void expect(const std::string& key, int64_t expected) {
    const int64_t have = count(key);
    if (have != expected) refuse(have, expected);
  }

  [[noreturn]] static void refuse(int64_t have, int64_t expected) {
    throw ServeError(409, "conversation_changed",
                     fmt::format("[store] the log has {} records, {} were expected", have, expected));
  }

  // What a process before this one has left: files by name, age and size, in the order of their use.
  void scan(const fs::path& root, const std::string& suffix, FileKind kind, Table& table) {
    std::vector<std::pair<int64_t, std::string>> found;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      if (!entry.is_regular_file()) continue;
      const fs::path& path = entry.path();
      if (path.filename().string().starts_with(".")) {  // an unfinished file of a process that was killed
        disk::remove_file(path);
        continue;
      }
      if (path.extension() != suffix) continue;
      const File f(path, O_RDONLY);
      struct stat st{};
      if (!f.exists() || ::fstat(f.fd(), &st) != 0) continue;
      std::string key = fs::relative(path, root).string();
      key.resize(key.size() - suffix.size());
      Known k;
      k.used = st.st_mtim.tv_sec;
      k.size = st.st_size;
      k.ttl = parse_file_header(kind, f.read(0, kFileHeader)).value_or(0);  // corrupt: told when it is read
      found.push_back({k.used, key});
      table.emplace(key, k);
    }
    std::ranges::sort(found);
    for (const auto& [used, key] : found) table.at(key).order = ++order_;
  }

  const DiskStoreOptions options_;
  const fs::path blobs_at_, logs_at_;
  std::unique_ptr<File> lock_;
  std::array<std::mutex, 64> keys_;
  std::mutex mutex_;  // of all below
  Table logs_, blobs_;
  std::map<std::string, Holder> holders_;
  uint64_t next_token_ = 0;
  int64_t order_ = 0, blob_bytes_ = 0;
  int64_t wall_ahead_ = 0;
  Stats stats_;
};

class DiskStore::DiskLease : public Store::Lease {
 public:
  DiskLease(DiskStore& store, std::string name, uint64_t token, std::chrono::milliseconds time)
      : store_(store), name_(std::move(name)), token_(token), time_(time) {}
  ~DiskLease() override {
    const std::lock_guard lock(store_.mutex_);
    const auto it = store_.holders_.find(name_);
    if (it != store_.holders_.end() && it->second.token == token_) store_.holders_.erase(it);
  }
  bool renew() override {
    const std::lock_guard lock(store_.mutex_);
    const auto it = store_.holders_.find(name_);
    const auto t = store_.options_.clock->steady();
    if (it == store_.holders_.end() || it->second.token != token_ || it->second.until <= t) return false;
    it->second.until = t + time_;
    return true;
  }

 private:
  DiskStore& store_;
  std::string name_;
  uint64_t token_;
  std::chrono::milliseconds time_;
};

// No other process has the folder, so that a table is enough.
std::unique_ptr<Store::Lease> DiskStore::lease(const std::string& name, std::chrono::milliseconds time) {
  check_store_key(name);
  const std::lock_guard lock(mutex_);
  const auto t = options_.clock->steady();
  Holder& h = holders_[name];
  if (h.token != 0 && h.until > t) return nullptr;
  h = {++next_token_, t + time};
  return std::make_unique<DiskLease>(*this, name, h.token, time);
}

}  // namespace

std::unique_ptr<Store> open_disk_store(DiskStoreOptions options) {
  try {
    return std::make_unique<DiskStore>(std::move(options));
  } catch (const fs::filesystem_error& e) {
    throw Error(ErrorCode::kFailed, fmt::format("[store] {}", e.what()));
  }
}

}  // namespace krait::serve
