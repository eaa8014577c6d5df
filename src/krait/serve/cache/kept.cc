#include "krait/serve/cache/kept.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include "krait/core/error.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

constexpr int kPlaceLives = 24;  // times as long as a conversation that is not used: others go on, and may be asked

bool is_prefix(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  return a.size() <= b.size() && std::equal(a.begin(), a.end(), b.begin());
}

std::string log_key(const std::string& tenant, const std::string& id, const Transcript& t) {
  return store_key(tenant, t.root.model, "c", id);
}

bool is_conflict(const ServeError& e) { return e.status() == 409; }

// Runs `f`, which is only about a cache.
template <class F>
void quietly(F f) {
  try {
    f();
  } catch (const ServeError&) {  // the store has counted it
  }
}

}  // namespace

int64_t Kept::now() const {
  return std::chrono::duration_cast<std::chrono::seconds>(clock_.wall().time_since_epoch()).count();
}

std::unique_ptr<Store::Lease> Kept::lease(const std::string& tenant, const std::string& id) {
  return authority()->lease(store_key(tenant, options_.model, "c", id), options_.lease);
}

// The usual case: the authority's log is the one we know, perhaps with more behind it.
bool Kept::follow(const std::string& key, Transcript& t) {
  if (t.records == 0) return false;
  {
    const std::lock_guard lock(mutex_);
    if (doubtful_.contains(key)) return false;
  }
  const Store::Log log = authority()->read_log(key, t.records - 1);
  if (log.corrupt || log.records.empty() || chain_after(log.records[0]) != t.chain) return false;
  for (size_t i = 1; i < log.records.size(); ++i) {
    if (shared_ != nullptr && local_ != nullptr) append_local(key, t, log.records[i]);
    if (!t.apply(log.records[i])) return false;
  }
  return true;
}

// What is written must follow what was read: another replica may add a turn meanwhile, and is then refused nothing.
void Kept::reload(const std::string& key, Transcript& t) {
  struct Seen {
    Store* store;
    int64_t size = 0;
    Store::Log log = {};
  };
  const auto read = [&](Store* store) {
    Seen seen{store};
    if (store == nullptr) return seen;
    if (store == local_) {
      seen.log = store->read_log(key);
      seen.size = store->log_size(key);  // even if its file has vanished
      return seen;
    }
    seen.size = store->log_size(key);
    seen.log = store->read_log(key);
    if (!seen.log.corrupt) seen.size = std::ssize(seen.log.records);
    return seen;
  };
  const Seen here = read(local_), there = read(shared_);
  const auto good_of = [&](const Seen& seen) {
    Transcript its(t.root.model);
    std::vector<std::string> records = seen.log.records;
    records.resize(its.apply_all(records));
    return records;
  };
  std::vector<std::string> mine = good_of(here), good = good_of(there);
  // The shared one counts, but for records that it has lost.
  if (shared_ == nullptr || (good.size() < mine.size() && is_prefix(good, mine))) good = std::move(mine);
  if (good.empty() && t.exists) good = rebuild(t);  // all is lost but what we know
  const auto make = [&](const Seen& seen) {
    if (seen.store == nullptr || (!seen.log.corrupt && seen.log.records == good)) return;
    if (good.empty()) {
      seen.store->erase_log(key);
    } else {
      seen.store->replace_log(key, seen.size, good, options_.ttl);
    }
  };
  make(there);
  make(here);
  Transcript now_known(t.root.model);
  now_known.apply_all(good);
  t = std::move(now_known);
  take_back(key, t);
}

void Kept::refresh(const std::string& tenant, const std::string& id, Transcript& t) {
  if (!any()) return;
  const std::string key = log_key(tenant, id, t);
  if (follow(key, t)) return;
  for (int tries = 3;; --tries) {
    try {
      return reload(key, t);
    } catch (const ServeError& e) {
      if (!is_conflict(e) || tries == 0) throw;
    }
  }
}

void Kept::doubt(const std::string& key, const std::string& record) {
  if (!is_turn(record)) return;  // a rewind or an erasure that may have happened does no harm: it was asked for
  const std::lock_guard lock(mutex_);
  doubtful_[key] = chain_after(record);
}

// If the last record is one that its client was told is not there, it goes.
void Kept::take_back(const std::string& key, Transcript& t) {
  uint64_t chain = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto it = doubtful_.find(key);
    if (it == doubtful_.end()) return;
    chain = it->second;
  }
  if (chain == t.chain && t.turns() > 0) {
    const std::string record = t.rewind_record(t.turns() - 1, now());
    authority()->append(key, t.records, record, options_.ttl);
    if (local_ != nullptr && local_ != authority()) append_local(key, t, record);
    t.apply(record);
  }
  const std::lock_guard lock(mutex_);
  doubtful_.erase(key);
}

void Kept::append_local(const std::string& key, const Transcript& t, const std::string& record) {
  // With a shared store it may be behind (turns were elsewhere), or say the same in other records.
  bool same = shared_ == nullptr || t.records == 0;
  if (!same) {
    const Store::Log last = local_->read_log(key, t.records - 1);
    same = last.records.size() == 1 && chain_after(last.records[0]) == t.chain;
  }
  try {
    if (!same) throw ServeError(409, "conversation_changed", "[store] the local log is another one");
    local_->append(key, t.records, record, options_.ttl);
  } catch (const ServeError& e) {
    if (!is_conflict(e) || shared_ == nullptr) throw;
    const std::vector<std::string> all = shared_->read_log(key).records;  // it was behind: a turn was elsewhere
    local_->replace_log(key, local_->log_size(key), all, options_.ttl);
  }
}

std::string Kept::append_shared(const std::string& key, Transcript& t, const RecordMaker& make) {
  std::string record = make(t);
  try {
    shared_->append(key, t.records, record, options_.ttl);
    return record;
  } catch (const ServeError& e) {
    if (!is_conflict(e)) {
      doubt(key, record);
      throw;
    }
    if (t.records == 0 || shared_->log_size(key) != 0) throw;
  }
  // It came back empty since we looked.
  const std::vector<std::string> all = rebuild(t);
  shared_->replace_log(key, 0, all, options_.ttl);
  Transcript again(t.root.model);
  again.apply_all(all);
  t = std::move(again);
  record = make(t);
  try {
    shared_->append(key, t.records, record, options_.ttl);
  } catch (const ServeError& e) {
    if (!is_conflict(e)) doubt(key, record);
    throw;
  }
  return record;
}

void Kept::append(const std::string& tenant, const std::string& id, Transcript& t, const RecordMaker& make) {
  const std::string key = log_key(tenant, id, t);
  const std::string record = shared_ != nullptr ? append_shared(key, t, make) : make(t);
  if (local_ != nullptr) {
    try {
      append_local(key, t, record);
    } catch (const ServeError&) {
      doubt(key, record);  // in the shared log it is, in the local one it may be
      throw;
    }
  }
  t.apply(record);
}

void Kept::replace(const std::string& tenant, const std::string& id, Transcript& t,
                   const std::vector<std::string>& records) {
  const std::string key = log_key(tenant, id, t);
  if (shared_ != nullptr) shared_->replace_log(key, t.records, records, options_.ttl);
  if (local_ != nullptr) {
    try {
      local_->replace_log(key, local_->log_size(key), records, options_.ttl);
    } catch (const ServeError&) {
      if (shared_ != nullptr) quietly([&] { shared_->erase_log(key); });
      throw;
    }
  }
  Transcript other(t.root.model);
  other.apply_all(records);
  t = std::move(other);
}

void Kept::erase(const std::string& tenant, const std::string& id, Transcript& t) {
  const std::string key = log_key(tenant, id, t);
  const std::string record = Transcript(t.root.model).erase_record(now());
  if (shared_ != nullptr) shared_->replace_log(key, t.records, {record}, options_.ttl);
  if (local_ != nullptr) local_->erase_log(key);
  t = Transcript(t.root.model);
  if (shared_ != nullptr) t.apply(record);
}

std::vector<std::string> Kept::list(const std::string& tenant) {
  std::vector<uint64_t> models = options_.adapted;
  models.insert(models.begin(), options_.model);
  const auto folder_of = [&](uint64_t model) { return store_folder(tenant, model, "c"); };
  std::vector<std::string> ids;
  std::set<std::string> seen;
  for (Store* store : {shared_, local_}) {
    if (store == nullptr) continue;
    std::vector<Store::LogName> names;
    for (const uint64_t model : models)
      std::ranges::move(store->list_logs(folder_of(model)), std::back_inserter(names));
    std::ranges::stable_sort(names, std::greater{}, &Store::LogName::used);
    for (const Store::LogName& name : names) {
      std::string id = name.key.substr(name.key.rfind('/') + 1);
      if (seen.insert(id).second) ids.push_back(std::move(id));
    }
  }
  return ids;
}

void Kept::put_state(const std::string& tenant, const PrefixMark& mark, const State& state) {
  if (!any()) return;
  const std::string key = state_key(tenant, state.model_fingerprint, mark.digest);
  const std::string bytes = state_bytes(state);
  for (Store* store : {local_, shared_}) {
    if (store != nullptr) quietly([&] { store->put(key, bytes, options_.ttl); });
  }
}

std::shared_ptr<const State> Kept::get_state(const std::string& tenant, uint64_t model, const PrefixMark& mark,
                                             bool& corrupt) {
  const std::string key = state_key(tenant, model, mark.digest);
  std::shared_ptr<const State> state;
  for (Store* store : {local_, shared_}) {
    if (store == nullptr || state != nullptr) continue;
    quietly([&] {
      const Store::Blob blob = store->get(key);
      corrupt = corrupt || blob.corrupt;
      if (!blob.bytes) return;
      try {
        state = parse_kept_state(*blob.bytes, model, mark.position, mark.hash);
      } catch (const Error&) {
        corrupt = true;
        store->erase(key);
      }
    });
  }
  return state;
}

void Kept::erase_state(const std::string& tenant, uint64_t model, const PrefixMark& mark) {
  const std::string key = state_key(tenant, model, mark.digest);
  for (Store* store : {local_, shared_}) {
    if (store != nullptr) quietly([&] { store->erase(key); });
  }
}

void Kept::put_root(const std::string& tenant, const PrefixRoot& root, const std::string& bytes) {
  const std::string key = store_key(tenant, root.model, "i", root.name);
  for (Store* store : {shared_, local_}) {
    if (store != nullptr) store->replace_log(key, store->log_size(key), {bytes}, options_.ttl);
  }
}

std::shared_ptr<const State> Kept::get_root(const std::string& tenant, const PrefixRoot& root) {
  const std::string key = store_key(tenant, root.model, "i", root.name);
  for (Store* store : {local_, shared_}) {
    if (store == nullptr) continue;
    const Store::Log log = store->read_log(key);
    if (log.records.empty()) continue;
    try {
      auto state = parse_kept_state(log.records[0], root.model, root.position, root.hash);
      Store* other = store == local_ ? shared_ : local_;
      if (other != nullptr && other->log_size(key) == 0) other->replace_log(key, 0, {log.records[0]}, options_.ttl);
      return state;
    } catch (const Error&) {
      continue;  // the other store may have it whole
    }
  }
  return nullptr;
}

void Kept::touch_root(const std::string& tenant, const PrefixRoot& root) {
  if (root.name.empty()) return;
  const std::string key = store_key(tenant, root.model, "i", root.name);
  for (Store* store : {local_, shared_}) {
    if (store != nullptr) store->touch_log(key, options_.ttl);
  }
}

void Kept::put_response(const std::string& tenant, const std::string& response, const Conversations::Place& place) {
  if (shared_ == nullptr) return;  // on disk the logs themselves are searched
  shared_->put(store_key(tenant, options_.model, "r", response), std::to_string(place.turns) + "/" + place.conversation,
               options_.ttl * kPlaceLives);
}

std::optional<Conversations::Place> Kept::get_response(const std::string& tenant, const std::string& response) {
  if (shared_ == nullptr) return {};
  const Store::Blob blob = shared_->get(store_key(tenant, options_.model, "r", response));
  if (!blob.bytes) return {};
  Conversations::Place place;
  const size_t slash = blob.bytes->find('/');
  if (slash == std::string::npos) return {};
  const auto parsed = std::from_chars(blob.bytes->data(), blob.bytes->data() + slash, place.turns);
  if (parsed.ec != std::errc{}) return {};
  place.conversation = blob.bytes->substr(slash + 1);
  return place;
}

void Kept::expire() {
  for (Store* store : {local_, shared_}) {
    if (store != nullptr) quietly([&] { store->expire(); });
  }
}

}  // namespace krait::serve
