#include "krait/serve/cache/state_key.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>

#include "krait/core/error.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

EVP_MD_CTX* as_context(void* p) { return static_cast<EVP_MD_CTX*>(p); }

void must(int ok) {
  if (ok != 1) throw Error(ErrorCode::kFailed, "[state] SHA-256 failed");
}

bool is_word(std::string_view s) {
  return std::ranges::all_of(s, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

constexpr size_t kLongestId = 128;

}  // namespace

void PrefixHasher::Free::operator()(void* context) const { EVP_MD_CTX_free(as_context(context)); }

PrefixHasher::PrefixHasher(const PrefixRoot& root)
    : context_(EVP_MD_CTX_new()), position_(root.position), hash_(root.hash) {
  must(context_ != nullptr && EVP_DigestInit_ex(as_context(context_.get()), EVP_sha256(), nullptr) == 1 ? 1 : 0);
  if (root.name.empty()) return;
  // No list of ids begins like this: its first four bytes would be a negative id.
  const std::string text = fmt::format("\xff\xff\xff\xff{}:{}:{:016x}:", root.name, root.position, root.hash);
  must(EVP_DigestUpdate(as_context(context_.get()), text.data(), text.size()));
}

PrefixHasher::PrefixHasher(const PrefixHasher& o) : context_(EVP_MD_CTX_new()), position_(o.position_), hash_(o.hash_) {
  must(context_ != nullptr ? EVP_MD_CTX_copy_ex(as_context(context_.get()), as_context(o.context_.get())) : 0);
}

PrefixHasher& PrefixHasher::operator=(const PrefixHasher& o) {
  if (this != &o) *this = PrefixHasher(o);
  return *this;
}

void PrefixHasher::add(std::span<const int32_t> ids) {
  must(EVP_DigestUpdate(as_context(context_.get()), ids.data(), ids.size_bytes()));
  position_ += static_cast<int64_t>(ids.size());
  hash_ = TokenHistory::extend(hash_, ids);
}

PrefixDigest PrefixHasher::digest() const {
  PrefixDigest d{};
  PrefixHasher end = *this;  // finishing spoils a context
  must(EVP_DigestFinal_ex(as_context(end.context_.get()), d.data(), nullptr));
  return d;
}

std::string store_folder(const std::string& tenant, uint64_t model, std::string_view kind) {
  if (!is_word(tenant) || tenant.size() > kLongestId) {
    throw ServeError(400, "invalid_value", "[store] a tenant's name has at most 128 of A-Z a-z 0-9 _ -");
  }
  return fmt::format("t{}/m{:016x}/{}", tenant, model, kind);
}

std::string store_key(const std::string& tenant, uint64_t model, std::string_view kind, std::string_view name) {
  check_id(name, "id");
  return fmt::format("{}/{}", store_folder(tenant, model, kind), name);
}

std::string state_key(const std::string& tenant, uint64_t model, const PrefixDigest& digest) {
  std::string hex;
  for (const uint8_t b : digest) hex += fmt::format("{:02x}", b);
  return store_key(tenant, model, "s", hex);
}

bool is_id(std::string_view id) { return !id.empty() && id.size() <= kLongestId && is_word(id); }

void check_id(std::string_view id, const std::string& param) {
  if (!is_id(id)) throw ServeError(400, "invalid_value", "an id has 1 to 128 of A-Z a-z 0-9 _ -", param);
}

std::string state_bytes(const State& state) {
  std::string bytes;
  bytes.reserve(static_cast<size_t>(state.nbytes()) + 65536);
  encode_state(state, [&](const void* p, size_t n) { bytes.append(static_cast<const char*>(p), n); });
  return bytes;
}

std::shared_ptr<const State> parse_kept_state(std::string_view bytes, uint64_t model, int64_t position, uint64_t hash) {
  auto state = std::make_shared<State>(parse_state(std::as_bytes(std::span(bytes)), "a kept state"));
  const TokenHistory& history = state->head.history;
  if (state->model_fingerprint != model || history.position() != position || history.hash() != hash) {
    fail_data(
        fmt::format("[state] a kept state of model {:016x} at position {}, history {:016x}; wanted {:016x}, {}, "
                    "{:016x}",
                    state->model_fingerprint, history.position(), history.hash(), model, position, hash));
  }
  return state;
}

void spill_to(PrefixCacheOptions& options, Store& store, std::chrono::seconds ttl) {
  options.spill = [&store, ttl](const std::string& key, const State& state) {
    store.put(key, state_bytes(state), ttl);
  };
  options.fetch = [&store](const std::string& key) -> std::shared_ptr<const State> {
    const Store::Blob blob = store.get(key);
    if (blob.corrupt) fail_data("[state] the kept state is corrupt");
    if (!blob.bytes) return nullptr;
    return std::make_shared<State>(parse_state(std::as_bytes(std::span(*blob.bytes)), "a kept state"));
  };
}

}  // namespace krait::serve
