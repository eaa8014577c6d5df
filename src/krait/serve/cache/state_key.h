// Names and bytes of states in a Store: a state is found by whose it is, the model, and a SHA-256 of the tokens it has
// read, and is believed only if checksum, model, position and history hash say the same.
#pragma once
#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "krait/infer/state.h"
#include "krait/serve/cache/prefix_cache.h"
#include "krait/serve/cache/store.h"

namespace krait::serve {

// Grows with the tokens, so that a prefix that is known already is not hashed again.
class PrefixHasher {
 public:
  explicit PrefixHasher(const PrefixRoot& root = {});
  PrefixHasher(const PrefixHasher&);
  PrefixHasher& operator=(const PrefixHasher&);
  PrefixHasher(PrefixHasher&&) = default;
  PrefixHasher& operator=(PrefixHasher&&) = default;

  void add(std::span<const int32_t> ids);
  PrefixDigest digest() const;                    // of everything so far
  int64_t position() const { return position_; }  // tokens so far, the root's included
  uint64_t hash() const { return hash_; }         // as TokenHistory::hash()
  PrefixMark mark() const { return {position_, hash_, digest()}; }

 private:
  struct Free {
    void operator()(void* context) const;
  };
  std::unique_ptr<void, Free> context_;  // EVP_MD_CTX
  int64_t position_ = 0;
  uint64_t hash_ = 0;
};

// "t<tenant>/m<fingerprint>/<kind>/<name>": keys of one tenant and model. Throws ServeError 400 for a tenant or name
// that is not made of [A-Za-z0-9_-], at most 128.
std::string store_key(const std::string& tenant, uint64_t model, std::string_view kind, std::string_view name);
std::string store_folder(const std::string& tenant, uint64_t model, std::string_view kind);

std::string state_key(const std::string& tenant, uint64_t model, const PrefixDigest& digest);

// 1 .. 128 of [A-Za-z0-9_-]: ids of conversations and responses.
bool is_id(std::string_view id);
void check_id(std::string_view id, const std::string& param);  // ServeError 400

std::string state_bytes(const State&);
// Throws kBadData, with the reason, for bytes that are not a whole state of this model, position and history.
std::shared_ptr<const State> parse_kept_state(std::string_view bytes, uint64_t model, int64_t position, uint64_t hash);

// Makes `store` the slower tier of a prefix cache. The store must outlive the cache.
void spill_to(PrefixCacheOptions& options, Store& store, std::chrono::seconds ttl);

}  // namespace krait::serve
