// Kept: what conversations have in the stores, local (disk) and shared (Redis), seen as one: a log of each, equal in
// both; states; states from outside; and where responses stand. With no store at all it keeps nothing.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "krait/serve/cache/transcript.h"

namespace krait::serve {

// The record that is to follow, given what it follows.
using RecordMaker = std::function<std::string(const Transcript&)>;

class Kept {
 public:
  Kept(const ConversationsOptions& options, Store* local, Store* shared, const Clock& clock)
      : options_(options), local_(local), shared_(shared), clock_(clock) {}

  bool any() const { return authority() != nullptr; }
  bool has_shared() const { return shared_ != nullptr; }
  // Of a conversation, whatever model reads it. Null: somebody else's.
  std::unique_ptr<Store::Lease> lease(const std::string& tenant, const std::string& id);

  // Makes the transcript what the stores say of the conversation with its model, reading what is new only. What a store
  // has lost (Redis came back empty) is put there again: from the other one, or from the transcript.
  void refresh(const std::string& tenant, const std::string& id, Transcript& t);
  // Appends a record to the stores and takes it in. If it throws, the transcript is as it was, and refresh() must see
  // to what may be in the stores: it takes the record back.
  void append(const std::string& tenant, const std::string& id, Transcript& t, const RecordMaker& make);
  // Another log instead.
  void replace(const std::string& tenant, const std::string& id, Transcript& t,
               const std::vector<std::string>& records);
  // Forgets a conversation, also in stores of other replicas: the shared log says so for as long as they may have it.
  void erase(const std::string& tenant, const std::string& id, Transcript& t);

  std::vector<std::string> list(const std::string& tenant);  // ids, of all models; last used first

  // States. Never throw because of a store: they are a cache.
  void put_state(const std::string& tenant, const PrefixMark& mark, const State& state);
  std::shared_ptr<const State> get_state(const std::string& tenant, uint64_t model, const PrefixMark& mark,
                                         bool& corrupt);
  void erase_state(const std::string& tenant, uint64_t model, const PrefixMark& mark);

  // A state from outside: durable, as it cannot be computed.
  void put_root(const std::string& tenant, const PrefixRoot& root, const std::string& bytes);
  std::shared_ptr<const State> get_root(const std::string& tenant, const PrefixRoot& root);
  void touch_root(const std::string& tenant, const PrefixRoot& root);

  void put_response(const std::string& tenant, const std::string& response, const Conversations::Place& place);
  std::optional<Conversations::Place> get_response(const std::string& tenant, const std::string& response);

  void expire();
  int64_t now() const;  // unix seconds

 private:
  Store* authority() const { return shared_ != nullptr ? shared_ : local_; }
  bool follow(const std::string& key, Transcript& t);
  void reload(const std::string& key, Transcript& t);
  std::string append_shared(const std::string& key, Transcript& t, const RecordMaker& make);
  void append_local(const std::string& key, const Transcript& t, const std::string& record);
  void take_back(const std::string& key, Transcript& t);
  void doubt(const std::string& key, const std::string& record);

  const ConversationsOptions& options_;
  Store* const local_;
  Store* const shared_;
  const Clock& clock_;
  std::mutex mutex_;
  // Logs whose last record may or may not be there, by the chain after it: the client was told that it is not.
  std::map<std::string, uint64_t> doubtful_;
};

}  // namespace krait::serve
