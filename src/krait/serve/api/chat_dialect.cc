// /v1/chat/completions: OpenAI's chats.
#include "krait/serve/api/dialect.h"

namespace krait::serve {
namespace {

using nlohmann::json;

class ChatDialect : public Dialect {
 public:
  ChatDialect(const Asked& asked, std::string model, const text::Tokenizer& tokenizer)
      : id_(asked.id),
        created_(asked.created),
        include_usage_(asked.include_usage),
        wants_logprobs_(asked.requests[0].logprobs.has_value()),
        n_(asked.requests[0].n),
        model_(std::move(model)),
        tokenizer_(tokenizer),
        logprobs_(static_cast<size_t>(n_), json::array()) {}

  void begin(const Usage&, const Emit& emit) override {
    for (int64_t i = 0; i < n_; ++i) emit("", chunk(i, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr));
  }

  void delta(const Delta& d, const Emit& emit) override {
    json logprobs;
    if (wants_logprobs_) {
      json one = entry(d.token_text, d.logprobs->chosen.logprob);
      one["top_logprobs"] = json::array();
      for (const TokenLogprob& t : d.logprobs->top)
        one["top_logprobs"].push_back(entry(tokenizer_.token_bytes(t.id), t.logprob));
      logprobs = {{"content", {one}}, {"refusal", nullptr}};
      logprobs_[static_cast<size_t>(d.choice)].push_back(std::move(one));
    }
    if (!d.text.empty() || wants_logprobs_)
      emit("", chunk(d.choice, {{"content", d.text}}, std::move(logprobs), nullptr));
  }

  void done(const Answer& a, const Emit& emit) override {
    for (size_t i = 0; i < a.choices.size(); ++i) {
      const std::string& rest = a.choices[i].last_text;
      const json delta = rest.empty() ? json::object() : json{{"content", rest}};
      emit("", chunk(static_cast<int64_t>(i), delta, nullptr, a.choices[i].finish_reason));
    }
    if (!include_usage_) return;
    json last = frame("chat.completion.chunk");
    last["usage"] = usage_json(a.usage);
    last["krait"] = krait_json(a);
    emit("", last);
  }

  json whole(const Answer& a) override {
    json out = frame("chat.completion");
    for (size_t i = 0; i < a.choices.size(); ++i) {
      const json logprobs = wants_logprobs_ ? json{{"content", logprobs_[i]}, {"refusal", nullptr}} : json();
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
  std::vector<json> logprobs_;  // of each choice
};

}  // namespace

std::unique_ptr<Dialect> chat_dialect(const Asked& asked, const std::string& model, const text::Tokenizer& t) {
  return std::make_unique<ChatDialect>(asked, model, t);
}

}  // namespace krait::serve
