// DiskStore: a Store in a folder of its own, used by one process at a time. Where the disk is full, blobs make room for
// what is to be written, the longest unused first. docs/formats.md, "Conversation logs".
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "krait/serve/cache/store.h"
#include "krait/serve/clock.h"

namespace krait::serve {

struct DiskStoreOptions {
  std::filesystem::path folder;               // made if it is not there
  int64_t max_blob_bytes = int64_t{8} << 30;  // beyond: the longest unused blobs go. Logs are not counted
  const Clock* clock = &real_clock();
  // For the log: failures and damage, with paths. On any thread; must not throw.
  std::function<void(const std::string& what)> report = {};
};

// Throws Error kFailed if the folder cannot be made or written to, or another process uses it.
std::unique_ptr<Store> open_disk_store(DiskStoreOptions options);

}  // namespace krait::serve
