// Conversation: a chat whose history lives in the state. A turn reads what is new and nothing else; undoing or
// rewriting a turn goes back to a kept state instead of reading the history again (traps E2, E4, E8).
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krait/infer/engine.h"
#include "krait/text/chat_template.h"
#include "session.h"

namespace krait::cli {

// Bytes of states that a conversation keeps to go back to; the oldest go first (trap E11). The last turn's stay.
inline constexpr int64_t kKeptStateBytes = int64_t{256} << 20;

struct ConversationOptions {
  SamplerParams sampler;
  std::vector<int32_t> stop_ids;
  std::vector<std::string> stops;
  int64_t max_new_tokens = 256;
  std::string system;    // first message, if not empty
  bool new_rng = false;  // of a loaded state: draw anew instead of going on with its random stream
  const std::atomic<bool>* cancel = nullptr;
};

struct Reply {
  int64_t read = 0, written = 0;  // tokens
  double read_seconds = 0, write_seconds = 0;
  bool interrupted = false;
  bool taken_back = false;  // interrupted while the message was read: the turn did not happen
  std::string note;         // why more than the new text had to be read; else empty
};

class Conversation {
 public:
  // Text of an answer as it comes; false stops it.
  using Show = std::function<bool(const std::string&)>;

  // `chat` null: plain text, every message a paragraph. `session` and `chat` must outlive it.
  Conversation(const Session& session, const text::ChatTemplate* chat, ConversationOptions options);

  // Reads a message and answers. Empty in a plain conversation: goes on writing. On an error nothing has changed.
  Reply say(const std::string& message, const Show& show);
  Reply regenerate(const Show& show);  // the last answer anew, with other random draws; throws kUsage if there is none
  void undo();                         // the last turn; throws kUsage if there is none or its state is no longer kept
  void reset();
  void load(std::shared_ptr<const State> state);  // goes on from a saved state, whose text is not known
  const std::shared_ptr<const State>& state() const { return state_; }  // null: nothing was read

  int64_t turns() const { return static_cast<int64_t>(turns_.size()); }
  int64_t kept_bytes() const;
  bool greedy() const { return options_.sampler.temperature == 0; }

 private:
  // A place to go back to: a state and how much of text_ it has read.
  struct Mark {
    std::shared_ptr<const State> state;
    size_t text = 0;
  };
  struct Turn {
    std::optional<Mark> before, read;  // before the message; after it, where the answer begins. None: no longer kept
    size_t messages = 0;               // before the turn
    uint64_t attempts = 0;             // answers given to it
  };

  std::string render() const;
  bool go_back_to_common(const std::string& target, std::string& note);
  std::vector<int32_t> encode_new(const std::string& target) const;
  void read(const std::vector<int32_t>& ids, Reply& reply);
  void answer(const Show& show, Reply& reply);
  void trim_marks();

  const Session& session_;
  const text::ChatTemplate* chat_;
  ConversationOptions options_;
  Engine engine_;
  std::vector<text::Message> messages_;
  std::string text_;  // what state_ has read since it began or was loaded
  std::shared_ptr<const State> state_;
  Mark origin_;  // where reset conversations and loaded states begin
  std::vector<Turn> turns_;
  bool fresh_rng_ = false;  // the next draw begins the random stream of the options
};

// Ids that open the first turn: system message, message, and what opens the answer. `continues`: on top of a state
// that has answered before.
std::vector<int32_t> open_turn(const text::Tokenizer& tokenizer, const text::ChatTemplate& chat,
                               const std::string& system, const std::string& message, bool continues);

}  // namespace krait::cli
