// /v1/chat/completions: OpenAI's chats.
#include <deque>
#include <optional>

#include "krait/serve/api/dialect.h"

namespace krait::serve {
namespace {

using nlohmann::json;

class ChatDialect : public Dialect {
 public:
  ChatDialect(const Asked& asked, const text::Tokenizer& tokenizer)
      : id_(asked.id),
        created_(asked.created),
        include_usage_(asked.include_usage),
        wants_logprobs_(asked.requests[0].logprobs.has_value()),
        n_(asked.requests[0].n),
        model_(asked.model),
        tokenizer_(tokenizer),
        streams_(asked.stream),
        choices_(static_cast<size_t>(n_)) {}

  void begin(const Usage&, const Emit& emit) override {
    for (int64_t i = 0; i < n_; ++i)
      emit("", dump(chunk(i, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr)));
  }

  void delta(const Delta& d, const Emit& emit) override {
    Choice& c = choices_[static_cast<size_t>(d.choice)];
    if (wants_logprobs_) {
      json one = entry(d.token_text, d.logprobs->chosen.logprob);
      one["top_logprobs"] = json::array();
      for (const TokenLogprob& t : d.logprobs->top) {
        one["top_logprobs"].push_back(entry(tokenizer_.token_bytes(t.id), t.logprob));
      }
      c.logprobs.push_back(std::move(one));
      c.tokens += 1;
    }
    if (d.text.empty() || !streams_) return;
    if (!wants_logprobs_) {
      if (!c.plain) c.plain.emplace(chunk(d.choice, {{"content", EventText::kHere}}, nullptr, nullptr));
      return emit("", c.plain->with(d.text));
    }
    emit("", dump(chunk(d.choice, {{"content", d.text}}, take(c, c.tokens), nullptr)));
  }

  void done(const Answer& a, const Emit& emit) override {
    for (size_t i = 0; i < a.choices.size(); ++i) {
      const std::string& rest = a.choices[i].last_text;
      const json delta = rest.empty() ? json::object() : json{{"content", rest}};
      const json logprobs = take(choices_[i], a.choices[i].ids.size());
      emit("", dump(chunk(static_cast<int64_t>(i), delta, logprobs, a.choices[i].finish_reason)));
    }
    if (!include_usage_) return;
    json last = frame("chat.completion.chunk");
    last["usage"] = usage_json(a.usage);
    last["krait"] = krait_json(a);
    emit("", dump(last));
  }

  json whole(const Answer& a) override {
    json out = frame("chat.completion");
    for (size_t i = 0; i < a.choices.size(); ++i) {
      const json logprobs = take(choices_[i], a.choices[i].ids.size());
      out["choices"].push_back(
          {{"index", i},
           {"message", {{"role", "assistant"}, {"content", a.choices[i].text}, {"refusal", nullptr}}},
           {"logprobs", logprobs},
           {"finish_reason", a.choices[i].finish_reason}});
    }
    out["usage"] = usage_json(a.usage);
    out["krait"] = krait_json(a);
    return out;
  }

 private:
  struct Choice {
    size_t tokens = 0, taken = 0;         // heard; told
    std::optional<EventText> plain = {};  // without log probabilities
    std::deque<json> logprobs = {};       // of the tokens between: some may turn out to be part of a stop string
  };

  // Of the tokens that were not told yet, up to token `end`; null without log probabilities.
  json take(Choice& c, size_t end) const {
    if (!wants_logprobs_) return nullptr;
    json list = json::array();
    for (; c.taken < end && !c.logprobs.empty(); ++c.taken, c.logprobs.pop_front()) {
      list.push_back(std::move(c.logprobs.front()));
    }
    return {{"content", std::move(list)}, {"refusal", nullptr}};
  }

  static json entry(const std::string& bytes, double logprob) {
    json list = json::array();
    for (const char b : bytes) list.push_back(static_cast<uint8_t>(b));
    return {{"token", bytes}, {"logprob", logprob}, {"bytes", std::move(list)}};
  }
  json frame(const char* object) const {
    return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_}, {"choices", json::array()}};
  }
  json chunk(int64_t index, json delta, json logprobs, json reason) const {
    json out = frame("chat.completion.chunk");
    out["choices"].push_back({{"index", index},
                              {"delta", std::move(delta)},
                              {"logprobs", std::move(logprobs)},
                              {"finish_reason", std::move(reason)}});
    return out;
  }

  std::string id_;
  int64_t created_;
  bool include_usage_, wants_logprobs_;
  int64_t n_;
  std::string model_;
  const text::Tokenizer& tokenizer_;
  bool streams_;
  std::vector<Choice> choices_;
};

}  // namespace

std::unique_ptr<Dialect> chat_dialect(const Asked& asked, const text::Tokenizer& t) {
  return std::make_unique<ChatDialect>(asked, t);
}

}  // namespace krait::serve
