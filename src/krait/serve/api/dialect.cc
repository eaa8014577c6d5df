#include "krait/serve/api/dialect.h"

#include <algorithm>

namespace krait::serve {

using nlohmann::json;

json usage_json(const Usage& u) {
  return {{"prompt_tokens", u.prompt_tokens},
          {"completion_tokens", u.completion_tokens},
          {"total_tokens", u.prompt_tokens + u.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", u.cached_tokens}}}};
}

json timing_json(const Timing& t) {
  return {{"queued_ms", t.queued * 1e3},
          {"first_token_ms", t.first_token * 1e3},
          {"prefill_ms", t.prefill * 1e3},
          {"decode_ms", t.decode * 1e3},
          {"total_ms", t.total * 1e3}};
}

json krait_json(const Answer& a) {
  return {{"cached_tokens", a.usage.cached_tokens},
          {"cache_miss", name_of(a.usage.miss)},
          {"timing", timing_json(a.timing)},
          {"seed", a.seed},
          {"conversation_id", a.conversation ? json(*a.conversation) : json()}};
}

json error_json(const ServeError& e) {
  return {{"error",
           {{"message", e.what()},
            {"type", e.type()},
            {"param", e.param() ? json(*e.param()) : json()},
            {"code", e.code()}}}};
}

std::string dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

EventText::EventText(const json& event) {
  const std::string all = dump(event), here = dump(kHere);
  const size_t at = all.find(here);
  before_ = all.substr(0, at);
  after_ = all.substr(at + here.size());
}

std::string EventText::with(const std::string& text) const {
  const bool plain = std::ranges::all_of(text, [](char c) { return c >= ' ' && c < 0x7f && c != '"' && c != '\\'; });
  std::string out;
  out.reserve(before_.size() + after_.size() + text.size() + 2);
  out += before_;
  if (plain) {
    out += '"';
    out += text;
    out += '"';
  } else {
    out += dump(text);
  }
  return out += after_;
}

std::unique_ptr<Dialect> make_dialect(const Asked& asked, const ApiContext& c) {
  switch (asked.endpoint) {
    case Endpoint::kGenerate:
      return generate_dialect(asked);
    case Endpoint::kCompletion:
      return completion_dialect(asked, c.tokenizer);
    case Endpoint::kChat:
      return chat_dialect(asked, c.tokenizer);
    case Endpoint::kResponse:
      return response_dialect(asked);
  }
  return nullptr;
}

}  // namespace krait::serve
