// PrefixCache: token prefix -> State, in memory: a radix tree a tenant and model over everything that was read, with
// states at some of its positions. A lookup gives the longest prefix whose state is at hand, and why it is not longer.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "krait/infer/state.h"
#include "krait/serve/clock.h"

namespace krait::serve {

enum class MissReason : uint8_t {
  kNone,      // everything asked for was found
  kUnknown,   // nobody of this tenant has read these tokens
  kDiverged,  // read once, but other tokens followed: the state before the fork is gone or was never kept
  kEvicted,   // the state was pushed out by the memory budget
  kExpired,   // the state was too old
  kCorrupt,   // the state's file or entry failed its checksum
};
const char* name_of(MissReason);  // "none", "unknown", …: label of mamba_state_cache_misses_total

// Where tokens are counted from: the beginning, or a state from outside (an imported conversation), of whose tokens
// only number and hash are known. `name` tells such roots apart. `model`: whose states these are, as
// Model::fingerprint() tells: adapters of one model are models apart.
struct PrefixRoot {
  std::string name;
  int64_t position = 0;
  uint64_t hash = 0;
  uint64_t model = 0;
};
inline PrefixRoot beginning_of(uint64_t model) { return {{}, 0, 0, model}; }

// SHA-256 of a root and the tokens behind it (PrefixHasher): what a prefix is called in the stores, and here.
using PrefixDigest = std::array<uint8_t, 32>;

struct PrefixMark {
  int64_t position = 0;  // tokens, the root's included
  uint64_t hash = 0;     // of their history
  PrefixDigest digest{};
};

struct PrefixHit {
  std::shared_ptr<const State> state;        // null: nothing usable
  int64_t length = 0;                        // tokens it has read: state->position()
  MissReason reason = MissReason::kUnknown;  // why it is not longer; kNone if length == the number of ids
  // Longest prefix of the ids that this tenant's requests have read before, with or without a state: where this prompt
  // leaves the known ones. Worth a state (trap E5: the third request with a shared prefix reuses all of it).
  int64_t known = 0;
};

struct PrefixCacheOptions {
  int64_t max_bytes = int64_t{1} << 30;  // of states and of the tree itself
  std::chrono::seconds ttl{3600};        // since the last use
  // Where an evicted state goes, and where it is looked for again: a slower tier. May be empty. Called outside the
  // cache's lock, by the call that evicts or looks: block here only if that call may. `key`: state_key(). What `spill`
  // throws is dropped; `fetch` gives null for what is not there and throws kBadData for what is corrupt.
  std::function<void(const std::string& key, const State&)> spill;
  std::function<std::shared_ptr<const State>(const std::string& key)> fetch;
};

struct PrefixCacheStats {
  int64_t states = 0, bytes = 0, nodes = 0;                                               // now
  int64_t hits = 0, misses = 0, evictions = 0, expirations = 0, spills = 0, fetches = 0;  // since the start
  int64_t tokens_saved = 0;                                                               // Σ length of hits
};

// Thread-safe.
class PrefixCache {
 public:
  PrefixCache(PrefixCacheOptions options, const Clock& clock);
  ~PrefixCache();

  // `tenant`: whose; nothing is ever found across tenants, nor across models. Counts as a use of the state.
  // `length` and `known` count the root's tokens too.
  // `from`: a mark that the ids begin with. If its state was put under that name and is still here, only the tokens
  // behind it are looked at, so that the cost does not grow with the conversation. The answer is the same.
  PrefixHit find(const std::string& tenant, std::span<const int32_t> ids, const PrefixRoot& root,
                 const PrefixMark* from = nullptr);
  // The state has read exactly `ids` (model, position and history hash are checked: kInternal otherwise). `from`: as
  // above; `name`: the mark of the ids themselves.
  void put(const std::string& tenant, std::span<const int32_t> ids, std::shared_ptr<const State> state,
           const PrefixRoot& root, const PrefixMark* from = nullptr, const PrefixMark* name = nullptr);
  // Forgets one state, or all of a tenant.
  void erase(const std::string& tenant, std::span<const int32_t> ids, const PrefixRoot& root);
  void erase_tenant(const std::string& tenant);
  void expire();  // drops what is too old; called now and then
  PrefixCacheStats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krait::serve
