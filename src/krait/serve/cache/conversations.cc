#include "krait/serve/cache/conversations.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <stop_token>
#include <thread>

#include "krait/core/error.h"
#include "krait/serve/cache/kept.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

void check_turns(size_t there, size_t wanted) {
  if (wanted <= there) return;
  throw ServeError(404, "no_such_turn", fmt::format("[states] the conversation has {} turns, not {}", there, wanted),
                   "turns");
}

using Key = std::pair<std::string, std::string>;  // tenant and id

ServeError not_found() { return {404, "conversation_not_found", "there is no such conversation"}; }
ServeError busy() { return {409, "conversation_busy", "another request of this conversation is running"}; }
ServeError exists() { return {409, "conversation_exists", "a conversation with this id exists"}; }

// What is known of a conversation. `used` and `place` belong to Impl's mutex, the transcript to this one.
struct Entry {
  explicit Entry(uint64_t model) : transcript(model) {}
  std::mutex mutex;
  Transcript transcript;
  std::shared_ptr<const State> base;  // of an imported one, if no store keeps it
  std::chrono::nanoseconds used{};
  std::list<Key>::iterator place;
};

// A lease that is renewed by one thread and given back by another.
struct Leased {
  std::mutex mutex;
  std::unique_ptr<Store::Lease> lease;

  void renew() {
    const std::lock_guard lock(mutex);
    try {
      if (lease != nullptr) lease->renew();  // if it is lost, the log's length still tells who was first
    } catch (const ServeError&) {            // the store is out of reach; tried again soon
    }
  }
  void give_back() {
    const std::lock_guard lock(mutex);
    lease.reset();
  }
};

}  // namespace

int64_t Conversation::tokens() const {
  int64_t n = imported;
  for (const Turn& t : turns) n += std::ssize(t.prompt) + std::ssize(t.answer);
  return n;
}

std::vector<int32_t> Conversation::ids(std::optional<size_t> n, bool prompt_only) const {
  std::vector<int32_t> all;
  const size_t end = std::min(n.value_or(turns.size()), turns.size());
  for (size_t i = 0; i < end; ++i) {
    all.insert(all.end(), turns[i].prompt.begin(), turns[i].prompt.end());
    if (prompt_only && i + 1 == end) break;
    all.insert(all.end(), turns[i].answer.begin(), turns[i].answer.end());
  }
  return all;
}

struct Conversations::Impl {
  class Holding;

  const ConversationsOptions options;
  PrefixCache& cache;
  const Clock& clock;
  Kept kept;

  mutable std::mutex mutex;
  std::map<Key, std::shared_ptr<Entry>> entries;
  std::list<Key> by_use;  // longest unused first
  std::set<Key> held;
  std::map<Key, Place> responses;                // by tenant and response
  std::map<Key, std::set<std::string>> indexed;  // the responses of a conversation that are there
  std::set<std::string> searched;                // tenants all of whose logs on disk have been in memory
  std::set<std::shared_ptr<Leased>> leases;
  std::condition_variable_any wake;
  std::jthread renewer;  // only with a shared store

  Impl(ConversationsOptions o, PrefixCache& c, Store* local, Store* shared, const Clock& k)
      : options(o), cache(c), clock(k), kept(options, local, shared, k) {
    if (shared != nullptr) renewer = std::jthread([this](const std::stop_token& stop) { renew_leases(stop); });
  }

  void renew_leases(const std::stop_token& stop) {
    std::unique_lock lock(mutex);
    while (!wake.wait_for(lock, stop, options.lease / 3, [&] { return stop.stop_requested(); })) {
      if (stop.stop_requested()) return;
      const std::vector<std::shared_ptr<Leased>> all(leases.begin(), leases.end());
      lock.unlock();
      for (const auto& lease : all) lease->renew();
      lock.lock();
    }
  }

  // ---- entries; with the mutex held

  void drop(const Key& key) {
    const auto it = entries.find(key);
    if (it == entries.end()) return;
    by_use.erase(it->second->place);
    entries.erase(it);
    for (const std::string& response : indexed[key]) {
      const auto r = responses.find({key.first, response});
      if (r != responses.end() && r->second.conversation == key.second) responses.erase(r);
    }
    indexed.erase(key);
  }

  bool too_old(const Entry& e) const { return e.used + options.ttl <= clock.steady(); }

  std::shared_ptr<Entry> entry(const Key& key) {
    auto it = entries.find(key);
    if (it != entries.end() && too_old(*it->second) && !held.contains(key)) {
      drop(key);
      it = entries.end();
    }
    if (it == entries.end()) {
      auto e = std::make_shared<Entry>(options.model);
      e->place = by_use.insert(by_use.end(), key);
      it = entries.emplace(key, std::move(e)).first;
      for (auto old = by_use.begin(); std::ssize(entries) > options.max_conversations && *old != key;) {
        const Key oldest = *old++;
        if (held.contains(oldest)) continue;
        searched.erase(oldest.first);
        drop(oldest);
      }
    }
    it->second->used = clock.steady();
    by_use.splice(by_use.end(), by_use, it->second->place);
    return it->second;
  }

  void forget_if_absent(const Key& key, bool exists_now) {
    const std::lock_guard lock(mutex);
    if (!exists_now && !held.contains(key)) drop(key);
  }

  // ---- transcripts; with the entry's mutex held

  void index(const Key& key, const Transcript& t) {
    const std::lock_guard lock(mutex);
    for (size_t i = t.inherited; i < t.turns(); ++i) {
      responses[{key.first, t.conversation.turns[i].response_id}] = {key.second, i + 1};
      indexed[key].insert(t.conversation.turns[i].response_id);
    }
  }

  // The conversation as its stores have it; if there is none, one that `begin_with` may begin. No two models have one
  // of the same name, but for those begun by servers that do not know of each other's adapters: then that of
  // `begin_with`.
  void refresh(const Key& key, Entry& e, uint64_t begin_with) {
    const int64_t records = e.transcript.records;
    const uint64_t chain = e.transcript.chain;
    Transcript& known = e.transcript;
    const uint64_t first = known.exists ? known.root.model : begin_with;
    if (!known.exists && known.root.model != first) known = Transcript(first);
    kept.refresh(key.first, key.second, known);
    for (size_t i = 0; kept.any() && !known.exists && i <= options.adapted.size(); ++i) {
      const uint64_t model = i == 0 ? options.model : options.adapted[i - 1];
      Transcript other(model);
      if (model != first) kept.refresh(key.first, key.second, other);
      if (other.exists || (model == begin_with && model != first)) known = std::move(other);
    }
    Conversation& c = e.transcript.conversation;
    c.tenant = key.first;
    c.id = key.second;
    if (e.transcript.records != records || e.transcript.chain != chain) index(key, e.transcript);
  }

  // Calls `f` with the conversation as it is now. 404 if there is none.
  template <class F>
  auto with(const std::string& tenant, const std::string& id, F f) {
    check_id(id, "conversation");
    const Key key(tenant, id);
    std::shared_ptr<Entry> e;
    {
      const std::lock_guard lock(mutex);
      e = entry(key);
    }
    bool there = false;
    {
      const std::lock_guard lock(e->mutex);
      bool free = false;
      {
        const std::lock_guard table(mutex);
        free = !held.contains(key);
      }
      if (free) refresh(key, *e, options.model);  // held: the holder's view counts, and must not change under it
      there = e->transcript.exists;
      if (there) return f(*e);
    }
    forget_if_absent(key, there);
    throw not_found();
  }

  std::unique_ptr<Holding> hold(const std::string& tenant, const std::string& id, std::optional<uint64_t> begin_with);

  // The state at a mark: from memory or the stores.
  std::shared_ptr<const State> state_at(const std::string& tenant, const Transcript& t, size_t turns, bool& corrupt) {
    const PrefixMark& mark = t.marks[turns];
    if (!kept.any() || (turns == 0 && t.root.name.empty())) return nullptr;
    std::shared_ptr<const State> state =
        turns == 0 ? kept.get_root(tenant, t.root) : kept.get_state(tenant, t.root.model, mark, corrupt);
    if (state != nullptr) cache.put(tenant, t.ids_to(mark), state, t.root, nullptr, &mark);
    return state;
  }

  // Of the turns behind `turns`, and of the state cache, what the stores may still have.
  void forget_states(const std::string& tenant, const Transcript& t, size_t turns) {
    const size_t kept_states = static_cast<size_t>(options.kept_states);
    const size_t first = std::max(turns, t.turns() > kept_states ? t.turns() - kept_states : 0);
    for (size_t i = first + 1; i <= t.turns(); ++i) {
      kept.erase_state(tenant, t.root.model, t.marks[i]);
      cache.erase(tenant, t.ids_to(t.marks[i]), t.root);
    }
  }
};

class Conversations::Impl::Holding : public Conversations::Hold {
 public:
  Holding(Impl& impl, Key key, std::shared_ptr<Entry> entry)
      : impl_(impl), key_(std::move(key)), entry_(std::move(entry)) {}

  ~Holding() override {
    bool there = false;
    {
      const std::lock_guard lock(entry_->mutex);
      there = entry_->transcript.exists;
    }
    lease_->give_back();
    const std::lock_guard lock(impl_.mutex);
    impl_.leases.erase(lease_);
    impl_.held.erase(key_);
    if (!there) impl_.drop(key_);
  }

  void open(std::optional<uint64_t> begin_with) {
    if (impl_.kept.any()) {
      lease_->lease = impl_.kept.lease(key_.first, key_.second);
      if (lease_->lease == nullptr) throw busy();
      const std::lock_guard lock(impl_.mutex);
      impl_.leases.insert(lease_);
    }
    const std::lock_guard lock(entry_->mutex);
    impl_.refresh(key_, *entry_, begin_with.value_or(impl_.options.model));
    if (!begin_with && !entry_->transcript.exists) throw not_found();
  }

  const Conversation& conversation() const override { return entry_->transcript.conversation; }
  Entry& entry() { return *entry_; }
  Transcript& transcript() { return entry_->transcript; }
  const Transcript& transcript() const { return entry_->transcript; }

  ConversationEnd end() const override { return transcript().end(transcript().turns()); }
  PrefixMark end_after(std::span<const int32_t> prompt) const override {
    PrefixHasher hasher = transcript().hasher;
    hasher.add(prompt);
    return hasher.mark();
  }
  PrefixHit find(std::span<const int32_t> prompt) override;
  void commit(Turn turn, std::shared_ptr<const State> end) override;

  void append(const RecordMaker& make) {
    const std::lock_guard lock(entry_->mutex);
    Transcript& t = transcript();
    impl_.kept.append(key_.first, key_.second, t, make);
    t.conversation.tenant = key_.first;
    t.conversation.id = key_.second;
  }

 private:
  Impl& impl_;
  const Key key_;
  const std::shared_ptr<Entry> entry_;
  const std::shared_ptr<Leased> lease_ = std::make_shared<Leased>();
};

std::unique_ptr<Conversations::Impl::Holding> Conversations::Impl::hold(const std::string& tenant,
                                                                        const std::string& id,
                                                                        std::optional<uint64_t> begin_with) {
  check_id(id, "conversation");
  const Key key(tenant, id);
  std::unique_ptr<Holding> h;
  {
    const std::lock_guard lock(mutex);
    if (held.contains(key)) throw busy();
    std::shared_ptr<Entry> e = entry(key);
    h = std::make_unique<Holding>(*this, key, std::move(e));
    held.insert(key);
  }
  h->open(begin_with);
  return h;
}

PrefixHit Conversations::Impl::Holding::find(std::span<const int32_t> prompt) {
  const Transcript& t = transcript();
  SharedIds ids = t.ids;
  ids.append(prompt);
  PrefixHit hit = impl_.cache.find(key_.first, ids.span(), t.root, &t.marks.back());
  const int64_t end = t.marks.back().position;
  bool corrupt = false, looked = false;
  const size_t kept_states = static_cast<size_t>(impl_.options.kept_states);
  for (size_t n = t.turns(); n + kept_states > t.turns() && t.marks[n].position > hit.length; --n) {
    looked = true;
    if (auto state = impl_.state_at(key_.first, t, n, corrupt)) {
      hit.state = std::move(state);
      hit.length = t.marks[n].position;
      break;
    }
    if (n == 0) break;
  }
  if (hit.state == nullptr && !t.root.name.empty()) {
    hit.state = entry_->base;
    if (hit.state == nullptr) throw ServeError(500, "state_lost", "the imported state of this conversation is lost");
    hit.length = t.root.position;
    impl_.cache.put(key_.first, {}, hit.state, t.root);
  }
  hit.known = std::max(hit.known, end);
  if (hit.length == t.root.position + std::ssize(ids.span())) {
    hit.reason = MissReason::kNone;
  } else if (hit.length < end && corrupt) {
    hit.reason = MissReason::kCorrupt;
  } else if (hit.length < end && hit.reason == MissReason::kUnknown) {
    hit.reason = MissReason::kEvicted;  // there was a state once, here or in another process
  } else if (looked && hit.length >= end && hit.known == hit.length) {
    hit.reason = MissReason::kUnknown;
  }
  return hit;
}

void Conversations::Impl::Holding::commit(Turn turn, std::shared_ptr<const State> end) {
  check_id(turn.response_id, "response");
  Transcript& t = transcript();
  PrefixHasher after = t.hasher;
  after.add(turn.prompt);
  after.add(turn.answer);
  if (end != nullptr && (end->model_fingerprint != t.root.model || end->position() != after.position() ||
                         end->head.history.hash() != after.hash())) {
    throw Error(ErrorCode::kInternal, fmt::format("[conversation] a state at position {} for a turn that ends at {}",
                                                  end->position(), after.position()));
  }
  impl_.kept.put_response(key_.first, turn.response_id, {key_.second, t.turns() + 1});
  append([&](const Transcript& last) { return last.turn_record(turn, impl_.kept.now()); });
  {
    const std::lock_guard lock(impl_.mutex);
    impl_.responses[{key_.first, turn.response_id}] = {key_.second, t.turns()};
    impl_.indexed[key_].insert(turn.response_id);
  }
  try {  // the turn is durable; what follows only makes it quick to go on
    impl_.kept.touch_root(key_.first, t.root);
  } catch (const ServeError&) {
  }
  if (end == nullptr) return;
  const PrefixMark* before = &t.marks[t.turns() - 1];
  impl_.cache.put(key_.first, t.ids.span(), end, t.root, before, &t.marks.back());
  impl_.kept.put_state(key_.first, t.marks.back(), *end);
  const size_t kept_states = static_cast<size_t>(impl_.options.kept_states);
  if (t.turns() > kept_states) impl_.kept.erase_state(key_.first, t.root.model, t.marks[t.turns() - kept_states]);
}

Conversations::Conversations(ConversationsOptions options, PrefixCache& cache, Store* local, Store* shared,
                             const Clock& clock)
    : impl_(std::make_unique<Impl>(options, cache, local, shared, clock)) {}
Conversations::~Conversations() = default;

std::unique_ptr<Conversations::Hold> Conversations::hold(const std::string& tenant, const std::string& id,
                                                         std::optional<uint64_t> begin_with) {
  return impl_->hold(tenant, id, begin_with);
}

Conversations::Place Conversations::find_response(const std::string& tenant, const std::string& response_id) {
  check_id(response_id, "response");
  const auto in_memory = [&]() -> std::optional<Place> {
    const std::lock_guard lock(impl_->mutex);
    const auto it = impl_->responses.find({tenant, response_id});
    return it == impl_->responses.end() ? std::nullopt : std::optional(it->second);
  };
  const auto stands = [&](const Place& p) {
    try {
      return impl_->with(tenant, p.conversation, [&](const Entry& e) {
        const auto& turns = e.transcript.conversation.turns;
        return p.turns >= 1 && p.turns <= turns.size() && turns[p.turns - 1].response_id == response_id;
      });
    } catch (const ServeError& e) {
      if (e.status() != 404) throw;
      return false;
    }
  };
  if (const auto p = in_memory(); p && stands(*p)) return *p;
  if (const auto p = impl_->kept.get_response(tenant, response_id); p && stands(*p)) return *p;
  bool search = false;
  {
    const std::lock_guard lock(impl_->mutex);
    search = impl_->kept.any() && !impl_->searched.contains(tenant);
  }
  if (search) {
    for (const std::string& id : impl_->kept.list(tenant)) stands({id, 0});  // reads the log, and so its responses
    const std::lock_guard lock(impl_->mutex);
    impl_->searched.insert(tenant);
  }
  if (const auto p = in_memory(); search && p && stands(*p)) return *p;
  throw ServeError(404, "response_not_found", "there is no such response");
}

ConversationEnd Conversations::end(const std::string& tenant, const Place& place) {
  return impl_->with(tenant, place.conversation, [&](const Entry& e) {
    check_turns(e.transcript.turns(), place.turns);
    return e.transcript.end(place.turns);
  });
}

Conversation Conversations::get(const std::string& tenant, const std::string& id) {
  return impl_->with(tenant, id, [](const Entry& e) { return e.transcript.conversation; });
}

std::vector<Conversation> Conversations::list(const std::string& tenant, int64_t limit) {
  std::vector<std::string> ids;
  if (impl_->kept.any()) {
    ids = impl_->kept.list(tenant);
  } else {
    const std::lock_guard lock(impl_->mutex);
    for (auto it = impl_->by_use.rbegin(); it != impl_->by_use.rend(); ++it) {
      if (it->first == tenant) ids.push_back(it->second);
    }
  }
  std::vector<Conversation> found;
  for (const std::string& id : ids) {
    if (std::ssize(found) >= limit) break;
    try {
      found.push_back(impl_->with(tenant, id, [](const Entry& e) {
        const Conversation& c = e.transcript.conversation;
        Conversation head;
        head.id = c.id;
        head.tenant = c.tenant;
        head.model = c.model;
        head.created = c.created;
        head.last_used = c.last_used;
        head.n_turns = c.n_turns;
        head.imported = c.imported;
        return head;
      }));
    } catch (const ServeError& e) {
      if (e.status() != 404) throw;  // gone meanwhile, or erased
    }
  }
  std::ranges::stable_sort(found, [](const auto& a, const auto& b) { return a.last_used > b.last_used; });
  return found;
}

Conversation Conversations::fork(const std::string& tenant, const std::string& id, std::optional<size_t> turns,
                                 const std::string& new_id) {
  check_id(new_id, "conversation");
  std::shared_ptr<const State> base;
  uint64_t model = 0;
  const std::vector<std::string> records = impl_->with(tenant, id, [&](const Entry& e) {
    model = e.transcript.root.model;
    Transcript part(model);
    const Conversation& c = e.transcript.conversation;
    const size_t n = turns.value_or(c.turns.size());
    check_turns(c.turns.size(), n);
    base = e.base;
    std::vector<std::string> all;
    const auto add = [&](std::string record) {
      part.apply(record);
      all.push_back(std::move(record));
    };
    const int64_t now = impl_->kept.now();
    if (!e.transcript.root.name.empty()) add(part.import_record(e.transcript.root, now));
    add(part.fork_record(id, n, now));
    for (size_t i = 0; i < n; ++i) add(part.turn_record(c.turns[i], now));
    return all;
  });
  const auto h = impl_->hold(tenant, new_id, model);
  const std::lock_guard lock(h->entry().mutex);
  Transcript& t = h->transcript();
  if (t.exists) throw exists();
  impl_->kept.replace(tenant, new_id, t, records);
  impl_->kept.touch_root(tenant, t.root);
  h->entry().base = base;
  t.conversation.tenant = tenant;
  t.conversation.id = new_id;
  return t.conversation;
}

Conversation Conversations::rewind(const std::string& tenant, const std::string& id, size_t turns) {
  const auto h = impl_->hold(tenant, id, {});
  const Transcript before = h->transcript();
  check_turns(before.turns(), turns);
  if (turns == before.turns()) return before.conversation;
  h->append([&](const Transcript& last) { return last.rewind_record(turns, impl_->kept.now()); });
  impl_->forget_states(tenant, before, turns);
  const std::lock_guard lock(impl_->mutex);
  for (size_t i = std::max(turns, before.inherited); i < before.turns(); ++i) {
    impl_->responses.erase({tenant, before.conversation.turns[i].response_id});
  }
  return h->conversation();
}

void Conversations::erase(const std::string& tenant, const std::string& id) {
  const auto h = impl_->hold(tenant, id, {});
  const std::lock_guard lock(h->entry().mutex);
  const Transcript before = h->transcript();
  impl_->kept.erase(tenant, id, h->transcript());
  impl_->forget_states(tenant, before, 0);
}

Conversation Conversations::import(const std::string& tenant, const std::string& id,
                                   std::shared_ptr<const State> state) {
  // What grows from such a state would be taken for what the model reads from its beginning.
  if (state->position() == 0) throw ServeError(400, "empty_state", "the state has read nothing", "state");
  const uint64_t model = state->model_fingerprint;
  if (model != impl_->options.model && !std::ranges::count(impl_->options.adapted, model)) {
    throw ServeError(400, "wrong_model", "the state belongs to another model", "state");
  }
  const auto h = impl_->hold(tenant, id, model);
  if (h->transcript().exists) throw exists();
  const std::string bytes = state_bytes(*state);
  const PrefixRoot root{fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size())), state->position(),
                        state->head.history.hash(), model};
  impl_->kept.put_root(tenant, root, bytes);
  h->append([&](const Transcript& last) { return last.import_record(root, impl_->kept.now()); });
  if (!impl_->kept.any()) h->entry().base = state;
  impl_->cache.put(tenant, {}, state, root);
  return h->conversation();
}

std::shared_ptr<const State> Conversations::state(const std::string& tenant, const std::string& id,
                                                  std::optional<size_t> turns) {
  return impl_->with(tenant, id, [&](const Entry& e) -> std::shared_ptr<const State> {
    const Transcript& t = e.transcript;
    const size_t n = turns.value_or(t.turns());
    check_turns(t.turns(), n);
    const PrefixHit hit = impl_->cache.find(tenant, t.ids_to(t.marks[n]), t.root, &t.marks[n]);
    if (hit.state != nullptr && hit.length == t.marks[n].position) return hit.state;
    if (n == 0 && e.base != nullptr) return e.base;
    bool corrupt = false;
    return impl_->state_at(tenant, t, n, corrupt);
  });
}

void Conversations::expire() {
  {
    const std::lock_guard lock(impl_->mutex);
    for (auto it = impl_->by_use.begin(); it != impl_->by_use.end();) {
      const Key key = *it++;
      if (!impl_->too_old(*impl_->entries.at(key))) break;
      if (!impl_->held.contains(key)) impl_->drop(key);
    }
  }
  impl_->kept.expire();
}

int64_t Conversations::active() const {
  const std::lock_guard lock(impl_->mutex);
  return std::ssize(impl_->entries);
}

}  // namespace krait::serve
