// /v1/completions: OpenAI's text completions.
#include <deque>
#include <optional>

#include "krait/serve/api/dialect.h"
#include "krait/serve/api/schema.h"

namespace krait::serve {
namespace {

using nlohmann::json;

class CompletionDialect : public Dialect {
 public:
  CompletionDialect(const Asked& asked, const text::Tokenizer& tokenizer)
      : id_(asked.id),
        created_(asked.created),
        include_usage_(asked.include_usage),
        wants_logprobs_(asked.requests[0].logprobs.has_value()),
        streams_(asked.stream),
        model_(asked.model),
        tokenizer_(tokenizer),
        choices_(asked.requests.size() * static_cast<size_t>(asked.requests[0].n)) {}

  void delta(const Delta& d, const Emit& emit) override {
    Choice& c = choices_[static_cast<size_t>(d.choice)];
    if (wants_logprobs_) add(d, c);
    c.offset += characters(d.text);
    if (d.text.empty() || !streams_) return;
    if (!wants_logprobs_) {
      if (!c.plain) c.plain.emplace(chunk(d.choice, EventText::kHere, nullptr, nullptr));
      return emit("", c.plain->with(d.text));
    }
    emit("", dump(chunk(d.choice, d.text, take(c, c.tokens), nullptr)));
  }

  void done(const Answer& a, const Emit& emit) override {
    for (size_t i = 0; i < a.choices.size(); ++i) {
      const json logprobs = take(choices_[i], a.choices[i].ids.size());
      emit("", dump(chunk(static_cast<int64_t>(i), a.choices[i].last_text, logprobs, a.choices[i].finish_reason)));
    }
    if (!include_usage_) return;
    json last = frame();
    last["choices"] = json::array();
    last["usage"] = usage_json(a.usage);
    last["krait"] = krait_json(a);
    emit("", dump(last));
  }

  json whole(const Answer& a) override {
    json out = frame();
    for (size_t i = 0; i < a.choices.size(); ++i) {
      out["choices"].push_back({{"text", a.choices[i].text},
                                {"index", i},
                                {"logprobs", take(choices_[i], a.choices[i].ids.size())},
                                {"finish_reason", a.choices[i].finish_reason}});
    }
    out["usage"] = usage_json(a.usage);
    out["krait"] = krait_json(a);
    return out;
  }

 private:
  struct Choice {
    size_t offset = 0;                    // characters of text so far
    size_t tokens = 0, taken = 0;         // heard; told
    std::optional<EventText> plain = {};  // without log probabilities
    std::deque<json> logprobs = {};       // of the tokens between: some may turn out to be part of a stop string
  };

  void add(const Delta& d, Choice& c) const {
    json top = json::object();
    for (const TokenLogprob& t : d.logprobs->top) top[dump_key(tokenizer_.token_bytes(t.id))] = t.logprob;
    c.logprobs.push_back({{"tokens", d.token_text},
                          {"token_logprobs", d.logprobs->chosen.logprob},
                          {"top_logprobs", std::move(top)},
                          {"text_offset", c.offset}});
    c.tokens += 1;
  }

  // Of the tokens that were not told yet, up to token `end`; null without log probabilities.
  json take(Choice& c, size_t end) const {
    if (!wants_logprobs_) return nullptr;
    json out;
    for (const char* name : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) out[name] = json::array();
    for (; c.taken < end && !c.logprobs.empty(); ++c.taken, c.logprobs.pop_front()) {
      for (auto& [name, list] : out.items()) list.push_back(c.logprobs.front()[name]);
    }
    return out;
  }

  // Two tokens may be parts of characters: each keeps an entry of its own.
  static std::string dump_key(const std::string& bytes) {
    const json text = bytes;
    std::string quoted = dump(text);
    return json::parse(quoted).get<std::string>() == bytes ? bytes : "bytes:" + hex(bytes);
  }
  static std::string hex(const std::string& bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    for (const char b : bytes) {
      out += "\\x";
      out += kDigits[static_cast<uint8_t>(b) >> 4];
      out += kDigits[static_cast<uint8_t>(b) & 15];
    }
    return out;
  }

  json frame() const {
    return {{"id", id_},
            {"object", "text_completion"},
            {"created", created_},
            {"model", model_},
            {"choices", json::array()}};
  }
  json chunk(int64_t index, const std::string& text, json logprobs, json reason) const {
    json out = frame();
    out["choices"].push_back(
        {{"text", text}, {"index", index}, {"logprobs", std::move(logprobs)}, {"finish_reason", std::move(reason)}});
    return out;
  }

  std::string id_;
  int64_t created_;
  bool include_usage_, wants_logprobs_, streams_;
  std::string model_;
  const text::Tokenizer& tokenizer_;
  std::vector<Choice> choices_;
};

}  // namespace

std::unique_ptr<Dialect> completion_dialect(const Asked& asked, const text::Tokenizer& t) {
  return std::make_unique<CompletionDialect>(asked, t);
}

}  // namespace krait::serve
