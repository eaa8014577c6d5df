#include "krait/serve/ops/keys.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>

#include "krait/core/error.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

constexpr size_t kShortestKey = 16;  // characters
constexpr size_t kTenantDigits = 16;

[[noreturn]] void bad(const std::filesystem::path& file, int line, const std::string& rule) {
  fail_data(fmt::format("[keys] {}:{}: {}", file.string(), line, rule));
}

bool is_sha256(const std::string& s) {
  return s.size() == 64 && s.find_first_not_of("0123456789abcdef") == std::string::npos;
}

void read_limit(const std::string& word, KeyLimits& limits, const std::filesystem::path& file, int line) {
  const size_t equals = word.find('=');
  const std::string name = word.substr(0, equals);
  int64_t value = 0;
  const char* end = word.data() + word.size();
  if (equals == std::string::npos || std::from_chars(word.data() + equals + 1, end, value).ptr != end ||
      equals + 1 == word.size()) {
    bad(file, line, fmt::format("'{}' is not NAME=NUMBER", word));
  }
  const int64_t least = name == "priority" ? -100 : 0, most = name == "priority" ? 100 : 1'000'000'000;
  if (value < least || value > most) bad(file, line, fmt::format("{} is {}, wants {} to {}", name, value, least, most));
  if (name == "requests_per_minute") {
    limits.requests_per_minute = value;
  } else if (name == "concurrent") {
    limits.concurrent = value;
  } else if (name == "priority") {
    limits.priority = static_cast<int>(value);
  } else {
    bad(file, line, fmt::format("'{}' is no limit; there are requests_per_minute, concurrent and priority", name));
  }
}

}  // namespace

std::string sha256_hex(std::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1) {
    throw Error(ErrorCode::kFailed, "[keys] SHA-256 failed");
  }
  std::string out;
  for (unsigned int i = 0; i < size; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

KeyEntry key_from_secret(const std::string& name, const std::string& key) {
  if (key.size() < kShortestKey) {
    fail_usage(
        fmt::format("[keys] an API key wants at least {} characters, this one has {}", kShortestKey, key.size()));
  }
  const std::string hash = sha256_hex(key);
  return {{name, hash.substr(0, kTenantDigits), {}}, hash};
}

std::vector<KeyEntry> read_keys(const std::filesystem::path& file) {
  std::ifstream in(file);
  if (!in) fail_data(fmt::format("[keys] cannot read {}", file.string()));
  std::vector<KeyEntry> out;
  std::set<std::string> names, tenants;
  std::string text;
  for (int line = 1; std::getline(in, text); ++line) {
    std::istringstream words(text.substr(0, text.find('#')));
    KeyEntry e;
    if (!(words >> e.info.name)) continue;
    if (!(words >> e.sha256) || !is_sha256(e.sha256)) {
      bad(file, line, "wants a name and the key's SHA-256 (64 hex digits: printf %s KEY | sha256sum)");
    }
    for (std::string word; words >> word;) read_limit(word, e.info.limits, file, line);
    e.info.tenant = e.sha256.substr(0, kTenantDigits);
    if (!names.insert(e.info.name).second) bad(file, line, fmt::format("the name '{}' stands twice", e.info.name));
    if (!tenants.insert(e.info.tenant).second) bad(file, line, "this key stands twice");
    out.push_back(std::move(e));
  }
  if (out.empty()) fail_data(fmt::format("[keys] {} holds no key", file.string()));
  return out;
}

bool Keys::open() const {
  const std::lock_guard lock(mutex_);
  return entries_.empty();
}

KeyInfo Keys::check(const std::string* authorization) const {
  const std::lock_guard lock(mutex_);
  if (entries_.empty()) return {"", "", {}};
  if (authorization == nullptr) {
    throw ServeError(401, "missing_api_key", "[auth] this server wants an API key: Authorization: Bearer KEY");
  }
  constexpr std::string_view kScheme = "bearer ";
  const bool bearer = authorization->size() > kScheme.size() &&
                      std::equal(kScheme.begin(), kScheme.end(), authorization->begin(), [](char a, char b) {
                        return a == (b >= 'A' && b <= 'Z' ? static_cast<char>(b + 32) : b);
                      });
  const std::string hash = sha256_hex(bearer ? authorization->substr(kScheme.size()) : std::string());
  const KeyEntry* found = nullptr;
  for (const KeyEntry& e : entries_) {  // all of them, whichever fits
    if (CRYPTO_memcmp(hash.data(), e.sha256.data(), hash.size()) == 0) found = &e;
  }
  if (!bearer || found == nullptr) throw ServeError(401, "invalid_api_key", "[auth] this API key is not known here");
  return found->info;
}

Keys::Pass Keys::enter(const KeyInfo& key) {
  const KeyLimits& l = key.limits;
  if (l.requests_per_minute == 0 && l.concurrent == 0) return {};
  const std::lock_guard lock(mutex_);
  const auto [it, first] = use_.try_emplace(key.tenant);
  Use& u = it->second;
  const auto now = clock_.steady();
  if (l.concurrent > 0 && u.running >= l.concurrent) {
    throw ServeError(429, "too_many_requests", fmt::format("[limit] {} requests at a time with this key", l.concurrent))
        .after(1);
  }
  if (l.requests_per_minute > 0) {
    const double full = static_cast<double>(l.requests_per_minute), rate = full / 60;
    const double passed = std::chrono::duration<double>(now - u.at).count();
    const double tokens = first ? full : std::min(full, u.tokens + passed * rate);
    if (tokens < 1) {
      throw ServeError(429, "rate_limit_exceeded", fmt::format("[limit] {} requests a minute with this key", full))
          .after(static_cast<int>(std::ceil((1 - tokens) / rate)));
    }
    u.tokens = tokens - 1;
    u.at = now;
  }
  u.running += 1;
  return {this, key.tenant};
}

Keys::Pass::~Pass() {
  if (keys_ == nullptr) return;
  const std::lock_guard lock(keys_->mutex_);
  keys_->use_[tenant_].running -= 1;
}

void Keys::replace(std::vector<KeyEntry> entries) {
  const std::lock_guard lock(mutex_);
  entries_ = std::move(entries);
}

}  // namespace krait::serve
