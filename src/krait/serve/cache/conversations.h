// Conversations: id -> everything that was said, as tokens, with the state at hand to go on. The log of turns is what
// counts; states are only a cache of it: a lost or corrupt one is computed again from the tokens, exactly.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krait/serve/cache/prefix_cache.h"
#include "krait/serve/cache/shared_ids.h"
#include "krait/serve/cache/store.h"

namespace krait::serve {

// One request and its answer, as one record of the log.
struct Turn {
  std::string response_id;      // "resp-…", "chatcmpl-…": unique
  int64_t created = 0;          // unix seconds
  std::vector<int32_t> prompt;  // what was read on top of the turns before
  std::vector<int32_t> answer;  // what was written and read (no stop id, nothing of a stop string)
  std::string user, assistant;  // as text, for people
};

struct Conversation {
  std::string id, tenant;
  uint64_t model = 0;                  // Model::fingerprint() with the adapter that reads it
  int64_t created = 0, last_used = 0;  // unix seconds
  std::vector<Turn> turns;
  size_t n_turns = 0;    // turns.size(), also where the turns themselves are left out (list())
  int64_t imported = 0;  // tokens that a state from outside had read before the first turn: in tokens() and in the
                         // length of a PrefixHit, not in ids()

  int64_t tokens() const;
  // All tokens up to the end of turn `n` (all turns if none is given); `prompt_only`: without the answer of the last of
  // them.
  std::vector<int32_t> ids(std::optional<size_t> turns = {}, bool prompt_only = false) const;
};

// Where a conversation stands after some of its turns, without a copy of it.
struct ConversationEnd {
  SharedIds ids;              // as Conversation::ids()
  PrefixMark mark;            // of the imported tokens and the ids
  int64_t imported = 0;       // as Conversation::imported
  std::string last_response;  // "" before the first turn
  bool is_last = true;        // no turns follow
  uint64_t model = 0;         // as Conversation::model
};

struct ConversationsOptions {
  std::chrono::seconds ttl{3600};           // since the last use
  int64_t max_conversations = 100'000;      // in memory; the longest unused go first (they stay in the stores)
  uint64_t model = 0;                       // fingerprint: conversations of other models are not seen,
  std::vector<uint64_t> adapted;            // but for these: of the same model with adapters
  int64_t kept_states = 3;                  // in the stores, of a conversation: after its last turns
  std::chrono::milliseconds lease{15'000};  // a replica that died keeps its conversations busy for so long
};

// Thread-safe; members may block on the stores. `local` (disk) and `shared` (Redis) may be null; with both null a
// conversation lives in memory only. The shared store is the authority where there is one.
class Conversations {
 public:
  Conversations(ConversationsOptions options, PrefixCache& cache, Store* local, Store* shared, const Clock& clock);
  ~Conversations();

  // The right to add one turn. While it is held, others who ask get ServeError 409 "conversation_busy" at once.
  class Hold {
   public:
    virtual ~Hold() = default;                             // lets go; nothing was added unless commit() returned
    virtual const Conversation& conversation() const = 0;  // as it is now, in all stores
    // The longest state at hand along the conversation's tokens followed by `prompt`. From memory, disk or Redis. Of an
    // imported conversation never shorter than what was imported.
    virtual PrefixHit find(std::span<const int32_t> prompt) = 0;
    virtual ConversationEnd end() const = 0;  // of all turns
    virtual PrefixMark end_after(std::span<const int32_t> prompt) const = 0;
    // Returns once the turn is durable in every store that is on. `end`: the state that has read all of it, or null.
    // Throws ServeError 503 / 409; the turn is then not part of the conversation.
    virtual void commit(Turn turn, std::shared_ptr<const State> end) = 0;
  };
  // `begin_with`: a conversation that does not exist begins empty (it exists once a turn is committed), to be read by
  // that model; without, 404 "conversation_not_found". Another tenant's is not found either. One that exists may be of
  // another model than `begin_with`: Conversation::model. Only that one can go on with it.
  std::unique_ptr<Hold> hold(const std::string& tenant, const std::string& id, std::optional<uint64_t> begin_with = {});

  // Where a response stands: the conversation and the number of turns up to and with it. 404 "response_not_found".
  struct Place {
    std::string conversation;
    size_t turns = 0;
  };
  Place find_response(const std::string& tenant, const std::string& response_id);

  ConversationEnd end(const std::string& tenant, const Place& place);        // 404
  Conversation get(const std::string& tenant, const std::string& id);        // 404
  std::vector<Conversation> list(const std::string& tenant, int64_t limit);  // without tokens; last used first
  // With `new_id` 409 "conversation_exists" if it is in use, here and in import().
  // A new conversation that begins with the first `turns` turns of another: states are shared, not copied.
  Conversation fork(const std::string& tenant, const std::string& id, std::optional<size_t> turns,
                    const std::string& new_id);
  // Cuts the turns behind `turns` off. 409 while held.
  Conversation rewind(const std::string& tenant, const std::string& id, size_t turns);
  void erase(const std::string& tenant, const std::string& id);  // 404; 409 while held
  // A state from outside as a new conversation: what it has read is known only to itself, so it cannot be rewound
  // before it, and is kept in the stores as long as the conversation is (it cannot be computed again).
  Conversation import(const std::string& tenant, const std::string& id, std::shared_ptr<const State> state);
  // The state after `turns` turns if it is at hand (memory, disk, Redis); null: it must be computed.
  std::shared_ptr<const State> state(const std::string& tenant, const std::string& id,
                                     std::optional<size_t> turns = {});

  void expire();           // called now and then; also of the stores
  int64_t active() const;  // conversations in memory

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krait::serve
