#include "krait/serve/api/states_routes.h"

#include <fmt/format.h>

#include "krait/core/error.h"
#include "krait/serve/api/dialect.h"
#include "krait/serve/api/query.h"
#include "krait/serve/cache/state_key.h"

namespace krait::serve {
namespace {

using nlohmann::json;

constexpr int64_t kListed = 100;

json summary(const ApiContext& context, const Conversation& c) {
  const ServedModel* const model = with_fingerprint(context.options.models, c.model);
  return {{"conversation_id", c.id},
          {"model", model != nullptr ? json(model->id) : json()},
          {"created", c.created},
          {"last_used", c.last_used},
          {"turns", c.n_turns}};
}

json whole(const ApiContext& context, const Conversation& c) {
  json out = summary(context, c);
  out["tokens"] = c.tokens();
  out["history"] = json::array();
  for (const Turn& t : c.turns) {
    out["history"].push_back({{"response_id", t.response_id},
                              {"created", t.created},
                              {"user", t.user},
                              {"assistant", t.assistant},
                              {"prompt_tokens", t.prompt.size()},
                              {"completion_tokens", t.answer.size()}});
  }
  return out;
}

HttpResponse answer(const json& body) { return {.body = dump(body)}; }

}  // namespace

HttpResponse list_states(ApiContext& c, const HttpRequest& r, const std::string& tenant) {
  const int64_t limit = query_number(r, kLimit).value_or(kListed);
  json list = json::array();
  for (const Conversation& one : c.conversations.list(tenant, limit)) list.push_back(summary(c, one));
  return answer({{"object", "list"}, {"data", std::move(list)}});
}

HttpResponse get_state(ApiContext& c, const std::string& id, const std::string& tenant) {
  return answer(whole(c, c.conversations.get(tenant, id)));
}

HttpResponse delete_state(ApiContext& c, const std::string& id, const std::string& tenant) {
  c.conversations.erase(tenant, id);
  return answer({{"conversation_id", id}, {"deleted", true}});
}

HttpResponse export_state(ApiContext& c, const HttpRequest& r, const std::string& id, const std::string& tenant) {
  const auto turns = query_number(r, kTurns);
  const auto state = c.service.state(tenant, id, turns ? std::optional(static_cast<size_t>(*turns)) : std::nullopt);
  HttpResponse out{.content_type = "application/octet-stream"};
  encode_state(*state, [&](const void* data, size_t bytes) { out.body.append(static_cast<const char*>(data), bytes); });
  out.headers.emplace_back("Content-Disposition", fmt::format("attachment; filename=\"{}.state\"", id));
  return out;
}

HttpResponse import_state(ApiContext& c, const HttpRequest& r, const std::string& id, const std::string& tenant) {
  check_id(id, "conversation_id");
  const auto bytes = std::as_bytes(std::span(r.body.data(), r.body.size()));
  const auto state = std::make_shared<const State>(parse_state(bytes, "the request's body"));
  if (with_fingerprint(c.options.models, state->model_fingerprint) == nullptr) {
    throw ServeError(400, "wrong_model",
                     fmt::format("[states] this state belongs to another model ({})", state->architecture));
  }
  c.service.check_foreign(*state);
  return answer(whole(c, c.conversations.import(tenant, id, state)));
}

HttpResponse fork_state(ApiContext& c, const json& body, const std::string& id, const std::string& tenant) {
  const bool named = body.contains("conversation_id") && body["conversation_id"].is_string();
  std::optional<size_t> turns;
  if (body.contains("turns") && body["turns"].is_number()) turns = static_cast<size_t>(body["turns"].get<double>());
  const std::string to = named ? body["conversation_id"].get<std::string>() : new_id("conv-");
  return answer(whole(c, c.conversations.fork(tenant, id, turns, to)));
}

HttpResponse rewind_state(ApiContext& c, const json& body, const std::string& id, const std::string& tenant) {
  return answer(whole(c, c.conversations.rewind(tenant, id, static_cast<size_t>(body["turns"].get<double>()))));
}

}  // namespace krait::serve
