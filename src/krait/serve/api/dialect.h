// Dialect: how one endpoint words an answer, whole or as a stream of events.
#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "krait/serve/api/context.h"
#include "krait/serve/api/read_request.h"

namespace krait::serve {

// One object an answer. Called in the order of the stream, never by two threads at a time. What it emits depends on the
// deltas and the answer alone: a stream that is run again emits the same events.
class Dialect {
 public:
  using Emit = std::function<void(const std::string& event, std::string data)>;
  virtual ~Dialect() = default;

  virtual void begin(const Usage&, const Emit&) {}
  virtual void delta(const Delta&, const Emit&) = 0;
  // Emits the last events.
  virtual void done(const Answer&, const Emit&) = 0;
  virtual bool ends_with_done_mark() const { return true; }  // "data: [DONE]"
  // The answer in one piece.
  virtual nlohmann::json whole(const Answer&) = 0;
};

// The one of the endpoint.
std::unique_ptr<Dialect> make_dialect(const Asked& asked, const ApiContext& context);

// Of one endpoint each.
std::unique_ptr<Dialect> generate_dialect(const Asked& asked);
std::unique_ptr<Dialect> completion_dialect(const Asked& asked, const text::Tokenizer& tokenizer);
std::unique_ptr<Dialect> chat_dialect(const Asked& asked, const text::Tokenizer& tokenizer);
std::unique_ptr<Dialect> response_dialect(const Asked& asked);

// Parts of several.
nlohmann::json usage_json(const Usage& usage);
nlohmann::json timing_json(const Timing& timing);
// What Krait tells beside OpenAI's fields: cache hit or the reason of a miss, timing, seed, conversation.
nlohmann::json krait_json(const Answer& answer);
nlohmann::json error_json(const ServeError& error);
// Text for JSON: bytes that are no characters become U+FFFD.
std::string dump(const nlohmann::json& value);

// Events that are alike but for one text: the rest is written once.
class EventText {
 public:
  static constexpr const char* kHere = "\xEF\xB7\x90";  // U+FDD0, no character: stands for the text
  explicit EventText(const nlohmann::json& event);
  std::string with(const std::string& text) const;  // as dump() of the event with that text

 private:
  std::string before_, after_;
};

}  // namespace krait::serve
