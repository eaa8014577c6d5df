#include "krait/serve/cache/prefix_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "krait/core/error.h"
#include "krait/serve/cache/state_key.h"

namespace krait::serve {
namespace {

using Time = std::chrono::nanoseconds;

struct Tree;
struct Node;
using Marks = std::list<Node*>;  // longest unused first

// The tokens from the parent's end to `end`. Kept while it is marked, or tokens go on in different ways behind it.
struct Node {
  Tree* tree = nullptr;
  Node* parent = nullptr;
  std::vector<int32_t> label;
  std::map<int32_t, std::unique_ptr<Node>> children;  // by the first id of their label
  int64_t end = 0;                                    // ids from the root
  uint64_t hash = 0;                                  // of the history up to `end`

  // A mark: somebody has read exactly up to here, and a state was kept. It may be gone, then `lost` says why.
  bool marked = false;
  std::shared_ptr<const State> state;
  int64_t state_bytes = 0;
  MissReason lost = MissReason::kNone;
  bool spilled = false;
  const PrefixDigest* name = nullptr;  // in Tree::named
  Time used{};                         // last use of the state; if it is gone: since when
  Marks::iterator place;
};

// Digests are as good as random: any part of one is.
struct DigestHash {
  size_t operator()(const PrefixDigest& d) const {
    size_t h = 0;
    std::memcpy(&h, d.data(), sizeof h);
    return h;
  }
};

struct Tree {
  std::string tenant;
  PrefixRoot root;
  Node top;
  std::unordered_map<PrefixDigest, Node*, DigestHash> named;  // marked ones
};

int64_t bytes_of(const Node& n) {
  constexpr size_t kOverhead = 96, kName = 64;  // of the map's entry and the list's; of a name
  return static_cast<int64_t>(sizeof(Node) + kOverhead + (n.name != nullptr ? kName : 0) +
                              n.label.size() * sizeof(int32_t));
}

int64_t bytes_of(const State& s) {
  constexpr size_t kCount = 32, kFixed = 512;  // of an entry of the history's counts; of all that has a fixed size
  const TokenHistory& h = s.head.history;
  return s.nbytes() + static_cast<int64_t>(kFixed + h.recent().size() * sizeof(int32_t) + h.counts().size() * kCount);
}

std::vector<int32_t> ids_of(const Node* n) {
  std::vector<const Node*> path;
  for (; n->parent != nullptr; n = n->parent) path.push_back(n);
  std::vector<int32_t> ids;
  for (auto it = path.rbegin(); it != path.rend(); ++it)
    ids.insert(ids.end(), (*it)->label.begin(), (*it)->label.end());
  return ids;
}

PrefixDigest digest_of(const PrefixRoot& root, std::span<const int32_t> ids) {
  PrefixHasher hasher(root);
  hasher.add(ids);
  return hasher.digest();
}

struct Walk {
  Node* last = nullptr;       // deepest node whose end is a prefix of the ids
  Node* next = nullptr;       // its child in which the ids end or leave
  int64_t known = 0;          // ids that agree
  std::vector<Node*> marked;  // on the way, shortest first
};

// `start`: a node whose tokens the ids begin with.
Walk walk(Node* start, std::span<const int32_t> ids) {
  Walk w;
  w.last = start;
  w.known = start->end;
  if (start->marked) w.marked.push_back(start);
  while (w.known < std::ssize(ids)) {
    const auto child = w.last->children.find(ids[static_cast<size_t>(w.known)]);
    if (child == w.last->children.end()) break;
    Node* n = child->second.get();
    const auto rest = ids.subspan(static_cast<size_t>(w.known));
    const auto agree =
        std::mismatch(n->label.begin(), n->label.end(), rest.begin(), rest.end()).first - n->label.begin();
    w.known += agree;
    if (agree < std::ssize(n->label)) {
      w.next = n;
      break;
    }
    w.last = n;
    if (n->marked) w.marked.push_back(n);
  }
  return w;
}

}  // namespace

const char* name_of(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return "none";
    case MissReason::kUnknown:
      return "unknown";
    case MissReason::kDiverged:
      return "diverged";
    case MissReason::kEvicted:
      return "evicted";
    case MissReason::kExpired:
      return "expired";
    case MissReason::kCorrupt:
      return "corrupt";
  }
  return "unknown";
}

struct PrefixCache::Impl {
  struct Spill {
    std::string tenant;
    PrefixRoot root;
    std::vector<int32_t> ids;  // without a name
    std::optional<PrefixDigest> name;
    std::shared_ptr<const State> state;
  };

  PrefixCacheOptions options;
  const Clock& clock;
  mutable std::mutex mutex;
  using TreeKey = std::tuple<std::string, uint64_t, std::string>;  // tenant, model, name of the root
  static TreeKey key_of(const std::string& tenant, const PrefixRoot& root) { return {tenant, root.model, root.name}; }
  std::map<TreeKey, std::unique_ptr<Tree>> trees;
  Marks with_state, without_state;
  int64_t tree_bytes = 0;
  PrefixCacheStats stats;  // bytes: of the states alone

  Impl(PrefixCacheOptions o, const Clock& c) : options(std::move(o)), clock(c) {}
  ~Impl() {
    while (!trees.empty()) drop_tree(trees.begin());
  }

  Tree* find_tree(const std::string& tenant, const PrefixRoot& root) {
    const auto it = trees.find(key_of(tenant, root));
    return it == trees.end() ? nullptr : it->second.get();
  }

  Tree& tree_of(const std::string& tenant, const PrefixRoot& root) {
    std::unique_ptr<Tree>& tree = trees[key_of(tenant, root)];
    if (tree == nullptr) {
      tree = std::make_unique<Tree>(Tree{tenant, root, {}, {}});
      tree->top.tree = tree.get();
      tree->top.hash = root.hash;
    }
    return *tree;
  }

  // Where a walk along ids that begin with the mark may begin: there, if it is known, else at the top.
  static Node* start_of(Tree& tree, std::span<const int32_t> ids, const PrefixMark* from, bool with_state) {
    const auto it = from != nullptr ? tree.named.find(from->digest) : tree.named.end();
    if (it == tree.named.end() || it->second->end > std::ssize(ids)) return &tree.top;
    return with_state && it->second->state == nullptr ? &tree.top : it->second;
  }

  void set_name(Node* n, const PrefixMark& mark) {
    if (n->name != nullptr) return;
    tree_bytes -= bytes_of(*n);
    n->name = &n->tree->named.emplace(mark.digest, n).first->first;
    tree_bytes += bytes_of(*n);
  }

  void drop_name(Node* n) {
    if (n->name == nullptr) return;
    tree_bytes -= bytes_of(*n);
    n->tree->named.erase(n->tree->named.find(*n->name));
    n->name = nullptr;
    tree_bytes += bytes_of(*n);
  }

  Node* adopt(Node* parent, std::vector<int32_t> label) {
    auto node = std::make_unique<Node>();
    node->tree = parent->tree;
    node->parent = parent;
    node->end = parent->end + std::ssize(label);
    node->hash = TokenHistory::extend(parent->hash, label);
    node->label = std::move(label);
    tree_bytes += bytes_of(*node);
    ++stats.nodes;
    Node* raw = node.get();
    parent->children[raw->label.front()] = std::move(node);
    return raw;
  }

  // A node that ends after the first `n` ids of the node's label.
  Node* split(Node* node, size_t n) {
    Node* parent = node->parent;
    std::unique_ptr<Node> lower = std::move(parent->children[node->label.front()]);
    tree_bytes -= bytes_of(*lower);
    const auto cut = lower->label.begin() + static_cast<ptrdiff_t>(n);
    Node* upper = adopt(parent, {lower->label.begin(), cut});
    lower->label = std::vector<int32_t>(cut, lower->label.end());
    lower->parent = upper;
    tree_bytes += bytes_of(*lower);
    upper->children[lower->label.front()] = std::move(lower);
    return upper;
  }

  void take_state(Node* n) {
    stats.bytes -= n->state_bytes;
    --stats.states;
    n->state.reset();
    n->state_bytes = 0;
  }

  void lose(Node* n, MissReason why, Time since) {
    take_state(n);
    n->lost = why;
    n->used = since;
    without_state.splice(without_state.end(), with_state, n->place);
  }

  void unmark(Node* n) {
    if (n->state != nullptr) {
      take_state(n);
      with_state.erase(n->place);
    } else {
      without_state.erase(n->place);
    }
    n->marked = false;
    drop_name(n);
    prune(n);
  }

  // Nodes that mean nothing any more go; one that only passes on to a single child becomes part of it.
  void prune(Node* n) {
    Tree* tree = n->tree;
    while (n->parent != nullptr && !n->marked && n->children.empty()) {
      Node* parent = n->parent;
      tree_bytes -= bytes_of(*n);
      --stats.nodes;
      parent->children.erase(n->label.front());
      n = parent;
    }
    if (n->parent != nullptr && !n->marked && n->children.size() == 1) {
      std::unique_ptr<Node> child = std::move(n->children.begin()->second);
      tree_bytes -= bytes_of(*n) + bytes_of(*child);
      --stats.nodes;
      std::vector<int32_t> label = std::move(n->label);
      label.insert(label.end(), child->label.begin(), child->label.end());
      child->label = std::move(label);
      child->parent = n->parent;
      tree_bytes += bytes_of(*child);
      Node* parent = n->parent;
      parent->children[child->label.front()] = std::move(child);
    }
    if (tree->top.children.empty() && !tree->top.marked) trees.erase(key_of(tree->tenant, tree->root));
  }

  // Without recursion: a path may be as long as a conversation has turns.
  void drop_tree(decltype(trees)::iterator tree) {
    std::vector<std::unique_ptr<Node>> open;
    const auto drop = [&](Node& n) {
      if (n.state != nullptr) {
        take_state(&n);
        with_state.erase(n.place);
      } else if (n.marked) {
        without_state.erase(n.place);
      }
      for (auto& [id, child] : n.children) open.push_back(std::move(child));
    };
    drop(tree->second->top);
    while (!open.empty()) {
      const std::unique_ptr<Node> n = std::move(open.back());
      open.pop_back();
      tree_bytes -= bytes_of(*n);
      --stats.nodes;
      drop(*n);
    }
    trees.erase(tree);
  }

  void expire(Time now) {
    while (!with_state.empty() && with_state.front()->used + options.ttl <= now) {
      ++stats.expirations;
      lose(with_state.front(), MissReason::kExpired, with_state.front()->used + options.ttl);
    }
    while (!without_state.empty() && without_state.front()->used + options.ttl <= now) unmark(without_state.front());
  }

  static Spill spill_of(const Node* n) {
    Spill s{n->tree->tenant, n->tree->root, {}, {}, n->state};
    if (n->name != nullptr) {
      s.name = *n->name;
    } else {
      s.ids = ids_of(n);
    }
    return s;
  }

  void fit(Time now, std::vector<Spill>& spills) {
    constexpr int64_t kTreeShare = 8;  // of the budget may be knowledge without states
    while (stats.bytes + tree_bytes > options.max_bytes) {
      const bool forget = tree_bytes > options.max_bytes / kTreeShare && !without_state.empty();
      if (!forget && !with_state.empty()) {
        Node* n = with_state.front();
        ++stats.evictions;
        n->spilled = options.spill != nullptr;
        if (n->spilled) spills.push_back(spill_of(n));
        lose(n, MissReason::kEvicted, now);
      } else if (!without_state.empty()) {
        unmark(without_state.front());
      } else {
        break;
      }
    }
  }

  void run(const std::vector<Spill>& spills) {
    for (const Spill& s : spills) {
      const PrefixDigest digest = s.name ? *s.name : digest_of(s.root, s.ids);
      try {
        options.spill(state_key(s.tenant, s.state->model_fingerprint, digest), *s.state);
      } catch (const std::exception&) {
        continue;  // the state is lost to the slower tier; it was only a copy of what the tokens say
      }
      const std::lock_guard lock(mutex);
      ++stats.spills;
    }
  }

  void insert(const std::string& tenant, std::span<const int32_t> ids, std::shared_ptr<const State> state,
              const PrefixRoot& root, const PrefixMark* from, const PrefixMark* name);
  // Brings back the longest state along `ids` that was pushed out, if it is longer than `at_least`.
  bool fetch_longer(const std::string& tenant, std::span<const int32_t> ids, const PrefixRoot& root,
                    const PrefixMark* from, int64_t at_least);
};

void PrefixCache::Impl::insert(const std::string& tenant, std::span<const int32_t> ids,
                               std::shared_ptr<const State> state, const PrefixRoot& root, const PrefixMark* from,
                               const PrefixMark* name) {
  std::vector<Spill> spills;
  std::unique_lock lock(mutex);
  const Time now = clock.steady();
  expire(now);
  uint64_t hash = root.hash;
  {
    Tree* known = find_tree(tenant, root);
    const Walk w = known != nullptr ? walk(start_of(*known, ids, from, false), ids) : Walk{};
    const int64_t hashed = known != nullptr ? w.last->end : 0;
    if (known != nullptr) hash = w.last->hash;
    hash = TokenHistory::extend(hash, ids.subspan(static_cast<size_t>(hashed)));
  }
  if (state->model_fingerprint != root.model || state->position() != root.position + std::ssize(ids) ||
      state->head.history.hash() != hash) {
    throw Error(
        ErrorCode::kInternal,
        fmt::format("[prefix cache] a state of model {:016x} at position {}, history {:016x}, for model {:016x}, {} "
                    "ids with history {:016x}",
                    state->model_fingerprint, state->position(), state->head.history.hash(), root.model,
                    root.position + std::ssize(ids), hash));
  }
  Tree& tree = tree_of(tenant, root);
  const Walk w = walk(start_of(tree, ids, from, false), ids);
  Node* n = w.last;
  if (w.next != nullptr) n = split(w.next, static_cast<size_t>(w.known - n->end));
  if (w.known < std::ssize(ids)) {
    const auto rest = ids.subspan(static_cast<size_t>(w.known));
    n = adopt(n, {rest.begin(), rest.end()});
  }
  if (n->state != nullptr) {
    take_state(n);
    with_state.splice(with_state.end(), with_state, n->place);
  } else if (n->marked) {
    with_state.splice(with_state.end(), without_state, n->place);
  } else {
    n->marked = true;
    n->place = with_state.insert(with_state.end(), n);
  }
  n->state_bytes = bytes_of(*state);
  n->state = std::move(state);
  n->used = now;
  n->spilled = false;
  if (name != nullptr && n != &tree.top) set_name(n, *name);
  stats.bytes += n->state_bytes;
  ++stats.states;
  fit(now, spills);
  lock.unlock();
  run(spills);
}

bool PrefixCache::Impl::fetch_longer(const std::string& tenant, std::span<const int32_t> ids, const PrefixRoot& root,
                                     const PrefixMark* from, int64_t at_least) {
  std::unique_lock lock(mutex);
  while (Tree* tree = find_tree(tenant, root)) {
    const Walk w = walk(start_of(*tree, ids, from, true), ids);
    const auto it = std::find_if(w.marked.rbegin(), w.marked.rend(),
                                 [&](const Node* n) { return n->state == nullptr && n->spilled && n->end > at_least; });
    if (it == w.marked.rend()) return false;
    const auto prefix = ids.first(static_cast<size_t>((*it)->end));
    const uint64_t hash = (*it)->hash;
    (*it)->spilled = false;  // looked for once
    const PrefixDigest digest = (*it)->name != nullptr ? *(*it)->name : digest_of(root, prefix);
    const std::string key = state_key(tenant, root.model, digest);
    lock.unlock();
    std::shared_ptr<const State> state;
    MissReason why = MissReason::kNone;
    try {
      state = options.fetch(key);
      if (state != nullptr && (state->model_fingerprint != root.model || state->head.history.hash() != hash ||
                               state->position() != root.position + std::ssize(prefix))) {
        fail_data("[state] a kept state is not the one that was looked for");
      }
    } catch (const Error& e) {
      state = nullptr;
      if (e.code() == ErrorCode::kBadData) why = MissReason::kCorrupt;
    } catch (const std::exception&) {  // the tier is out of reach
    }
    if (state != nullptr) {
      lock.lock();
      ++stats.fetches;
      lock.unlock();
      return insert(tenant, prefix, std::move(state), root, nullptr, nullptr), true;
    }
    lock.lock();
    if (why == MissReason::kNone) continue;
    if (Tree* again = find_tree(tenant, root)) {
      const Walk v = walk(&again->top, prefix);
      if (v.last->end == std::ssize(prefix) && v.last->marked && v.last->state == nullptr) v.last->lost = why;
    }
  }
  return false;
}

PrefixCache::PrefixCache(PrefixCacheOptions options, const Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(options), clock)) {}
PrefixCache::~PrefixCache() = default;

PrefixHit PrefixCache::find(const std::string& tenant, std::span<const int32_t> ids, const PrefixRoot& root,
                            const PrefixMark* from) {
  const auto look = [&] {
    const std::lock_guard lock(impl_->mutex);
    const Time now = impl_->clock.steady();
    impl_->expire(now);
    PrefixHit hit;
    hit.known = root.position;
    Tree* tree = impl_->find_tree(tenant, root);
    if (tree == nullptr) return hit;
    const Walk w = walk(impl_->start_of(*tree, ids, from, true), ids);
    hit.known += w.known;
    hit.reason = w.known > 0 ? MissReason::kDiverged : MissReason::kUnknown;
    for (auto it = w.marked.rbegin(); it != w.marked.rend() && hit.state == nullptr; ++it) {
      Node* n = *it;
      if (n->state == nullptr) {
        if (hit.reason == MissReason::kDiverged || hit.reason == MissReason::kUnknown) hit.reason = n->lost;
        continue;
      }
      hit.state = n->state;
      hit.length = root.position + n->end;
      n->used = now;
      impl_->with_state.splice(impl_->with_state.end(), impl_->with_state, n->place);
      if (n == w.marked.back() && hit.known == hit.length) hit.reason = MissReason::kUnknown;
      if (n->end == std::ssize(ids)) hit.reason = MissReason::kNone;
    }
    return hit;
  };
  PrefixHit hit = look();
  if (impl_->options.fetch && hit.reason != MissReason::kNone &&
      impl_->fetch_longer(tenant, ids, root, from, hit.length - (hit.state != nullptr ? root.position : 0))) {
    const PrefixHit longer = look();
    if (longer.length >= hit.length) hit = longer;
  } else if (impl_->options.fetch && hit.reason == MissReason::kEvicted) {
    hit = look();  // the reason may be known better now
  }
  const std::lock_guard lock(impl_->mutex);
  ++(hit.state != nullptr ? impl_->stats.hits : impl_->stats.misses);
  impl_->stats.tokens_saved += hit.length;
  return hit;
}

void PrefixCache::put(const std::string& tenant, std::span<const int32_t> ids, std::shared_ptr<const State> state,
                      const PrefixRoot& root, const PrefixMark* from, const PrefixMark* name) {
  impl_->insert(tenant, ids, std::move(state), root, from, name);
}

void PrefixCache::erase(const std::string& tenant, std::span<const int32_t> ids, const PrefixRoot& root) {
  const std::lock_guard lock(impl_->mutex);
  Tree* tree = impl_->find_tree(tenant, root);
  if (tree == nullptr) return;
  const Walk w = walk(&tree->top, ids);
  if (w.last->end == std::ssize(ids) && w.last->marked) impl_->unmark(w.last);
}

void PrefixCache::erase_tenant(const std::string& tenant) {
  const std::lock_guard lock(impl_->mutex);
  for (auto it = impl_->trees.lower_bound({tenant, 0, ""});
       it != impl_->trees.end() && std::get<0>(it->first) == tenant;) {
    impl_->drop_tree(it++);
  }
}

void PrefixCache::expire() {
  const std::lock_guard lock(impl_->mutex);
  impl_->expire(impl_->clock.steady());
}

PrefixCacheStats PrefixCache::stats() const {
  const std::lock_guard lock(impl_->mutex);
  PrefixCacheStats s = impl_->stats;
  s.bytes += impl_->tree_bytes;
  return s;
}

}  // namespace krait::serve
