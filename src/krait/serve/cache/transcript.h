// Transcript: a conversation as the records of its log say it is, and those records. docs/formats.md, "Conversation
// logs".
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "krait/serve/cache/conversations.h"
#include "krait/serve/cache/shared_ids.h"
#include "krait/serve/cache/state_key.h"

namespace krait::serve {

struct Transcript {
  bool exists = false;
  Conversation conversation;
  PrefixRoot root;                // of an imported conversation; its `model`, of any
  size_t inherited = 0;           // turns that a fork begins with: their responses are the other conversation's
  SharedIds ids;                  // of all turns
  std::vector<PrefixMark> marks;  // after 0, 1, … turns: what their states are called, and what they must be
  PrefixHasher hasher;            // at the end

  int64_t records = 0;
  uint64_t chain = 0;  // hash of all records: each one names it, so that none can be missing or out of place

  explicit Transcript(uint64_t model);
  size_t turns() const { return conversation.turns.size(); }
  // The ids up to a mark.
  std::span<const int32_t> ids_to(const PrefixMark& mark) const {
    return ids.span().first(static_cast<size_t>(mark.position - root.position));
  }
  ConversationEnd end(size_t turns) const;
  // Takes in the next record. False, and nothing changed: it is none, or does not follow the last one.
  bool apply(std::string_view record);
  // Takes in records as far as they follow each other; how many.
  size_t apply_all(const std::vector<std::string>& records);

  // The next record; `time`: unix seconds.
  std::string turn_record(const Turn& turn, int64_t time) const;
  std::string rewind_record(size_t turns, int64_t time) const;
  std::string import_record(const PrefixRoot& root, int64_t time) const;
  std::string fork_record(const std::string& from, size_t turns, int64_t time) const;
  std::string erase_record(int64_t time) const;

 private:
  void cut(size_t turns);
  void begin_at(const PrefixRoot& root);  // whose model is this one
};

// The chain after a record, by that record alone. 0: it is none.
uint64_t chain_after(std::string_view record);

bool is_turn(std::string_view record);

// A log that says the same, from its beginning.
std::vector<std::string> rebuild(const Transcript& transcript);

}  // namespace krait::serve
