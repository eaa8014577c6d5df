// Keys: who may ask, told by API key. Only hashes are kept; a key's tenant follows from its hash.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "krait/serve/clock.h"

namespace krait::serve {

struct KeyLimits {
  int64_t requests_per_minute = 0;  // 0: none
  int64_t concurrent = 0;           // requests at a time; 0: no limit
  int priority = 0;                 // of its requests, at most
};

struct KeyInfo {
  std::string name;    // for logs and metrics
  std::string tenant;  // first 16 hex digits of the SHA-256; "" if the server asks for no keys
  KeyLimits limits;
};

// One line a key: `name sha256-of-the-key [requests_per_minute=N] [concurrent=N] [priority=N]`; # begins a comment.
// Throws Error kBadData, with the line, on anything else, on double names and on double hashes.
struct KeyEntry {
  KeyInfo info;
  std::string sha256;  // 64 hex digits, lower case
};
std::vector<KeyEntry> read_keys(const std::filesystem::path& file);
KeyEntry key_from_secret(const std::string& name, const std::string& key);  // throws kUsage if it is shorter than 16
std::string sha256_hex(std::string_view bytes);

// Thread-safe.
class Keys {
 public:
  // No entries: everybody may ask, as one tenant.
  Keys(std::vector<KeyEntry> entries, const Clock& clock) : entries_(std::move(entries)), clock_(clock) {}

  bool open() const;
  // Whose key this is; compares all of them, in constant time. `bearer`: value of "Authorization", or null. Throws
  // ServeError 401 "invalid_api_key" if there is none or it is not known.
  KeyInfo check(const std::string* authorization) const;

  // A request that is being answered. Throws ServeError 429 with Retry-After where a limit of the key is reached.
  class Pass {
   public:
    Pass() = default;
    Pass(Keys* keys, std::string tenant) : keys_(keys), tenant_(std::move(tenant)) {}
    Pass(Pass&& o) noexcept : keys_(std::exchange(o.keys_, nullptr)), tenant_(std::move(o.tenant_)) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass();

   private:
    Keys* keys_ = nullptr;
    std::string tenant_;
  };
  Pass enter(const KeyInfo& key);

  void replace(std::vector<KeyEntry> entries);  // reload: takes effect with the next request

 private:
  struct Use {
    double tokens = 0;  // of the bucket of requests
    std::chrono::nanoseconds at{};
    int64_t running = 0;
  };
  mutable std::mutex mutex_;
  std::vector<KeyEntry> entries_;
  std::map<std::string, Use> use_;  // by tenant
  const Clock& clock_;
};

}  // namespace krait::serve
