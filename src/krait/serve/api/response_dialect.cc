// /v1/responses: OpenAI's responses, each of which can be gone on from.
#include "krait/serve/api/dialect.h"

namespace krait::serve {
namespace {

using nlohmann::json;

class ResponseDialect : public Dialect {
 public:
  explicit ResponseDialect(const Asked& asked)
      : id_(asked.id),
        item_("msg_" + asked.id.substr(asked.id.find('_') + 1)),
        created_(asked.created),
        store_(asked.store),
        previous_(asked.previous_response ? json(*asked.previous_response) : json()),
        echo_(asked.echo),
        model_(asked.model) {}

  bool ends_with_done_mark() const override { return false; }

  void begin(const Usage&, const Emit& emit) override {
    event(emit, "response.created", {{"response", response("in_progress")}});
    event(emit, "response.in_progress", {{"response", response("in_progress")}});
    event(emit, "response.output_item.added", {{"output_index", 0}, {"item", item("in_progress", json::array())}});
    event(emit, "response.content_part.added", of_part({{"part", part("")}}));
  }

  void delta(const Delta& d, const Emit& emit) override { text(d.text, emit); }

  void done(const Answer& a, const Emit& emit) override {
    text(a.choices[0].last_text, emit);
    const std::string& all = a.choices[0].text;
    event(emit, "response.output_text.done", of_part({{"text", all}, {"logprobs", json::array()}}));
    event(emit, "response.content_part.done", of_part({{"part", part(all)}}));
    event(emit, "response.output_item.done", {{"output_index", 0}, {"item", item(status(a), {part(all)})}});
    event(emit, cut_short(a) ? "response.incomplete" : "response.completed", {{"response", whole(a)}});
  }

  json whole(const Answer& a) override {
    json out = response(status(a));
    out["output"].push_back(item(status(a), {part(a.choices[0].text)}));
    if (cut_short(a)) out["incomplete_details"] = {{"reason", "max_output_tokens"}};
    out["usage"] = {{"input_tokens", a.usage.prompt_tokens},
                    {"input_tokens_details", {{"cached_tokens", a.usage.cached_tokens}}},
                    {"output_tokens", a.usage.completion_tokens},
                    {"output_tokens_details", {{"reasoning_tokens", 0}}},
                    {"total_tokens", a.usage.prompt_tokens + a.usage.completion_tokens}};
    out["krait"] = krait_json(a);
    return out;
  }

 private:
  static bool cut_short(const Answer& a) { return a.choices[0].finish_reason == "length"; }
  static const char* status(const Answer& a) { return cut_short(a) ? "incomplete" : "completed"; }
  static json part(const std::string& text) {
    return {{"type", "output_text"}, {"text", text}, {"annotations", json::array()}, {"logprobs", json::array()}};
  }
  json item(const char* status, json content) const {
    return {
        {"id", item_}, {"type", "message"}, {"role", "assistant"}, {"status", status}, {"content", std::move(content)}};
  }
  json of_part(json more) const {
    more.update({{"item_id", item_}, {"output_index", 0}, {"content_index", 0}});
    return more;
  }
  json response(const char* status) const {
    json out = {{"id", id_},
                {"object", "response"},
                {"created_at", created_},
                {"status", status},
                {"model", model_},
                {"output", json::array()},
                {"previous_response_id", previous_},
                {"store", store_},
                {"error", nullptr},
                {"incomplete_details", nullptr},
                {"parallel_tool_calls", false},
                {"tool_choice", "none"},
                {"tools", json::array()},
                {"text", {{"format", {{"type", "text"}}}}},
                {"truncation", "disabled"},
                {"usage", nullptr}};
    out.update(echo_);
    return out;
  }
  void text(const std::string& part, const Emit& emit) {
    if (!part.empty())
      event(emit, "response.output_text.delta", of_part({{"delta", part}, {"logprobs", json::array()}}));
  }
  void event(const Emit& emit, const char* type, json data) {
    data["type"] = type;
    data["sequence_number"] = next_++;
    emit(type, dump(data));
  }

  std::string id_, item_;
  int64_t created_;
  bool store_;
  json previous_, echo_;
  std::string model_;
  int64_t next_ = 0;
};

}  // namespace

std::unique_ptr<Dialect> response_dialect(const Asked& asked) { return std::make_unique<ResponseDialect>(asked); }

}  // namespace krait::serve
