#include "krait/serve/api/read_request.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <array>
#include <cmath>
#include <limits>

#include "krait/core/error.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

using nlohmann::json;

template <size_t kBytes>
std::array<uint8_t, kBytes> random_bytes() {
  std::array<uint8_t, kBytes> out;
  if (getrandom(out.data(), kBytes, 0) != static_cast<ssize_t>(kBytes)) {
    throw Error(ErrorCode::kFailed, "[serve] the system has no random bytes");
  }
  return out;
}

uint64_t random_seed() {
  uint64_t seed = 0;
  for (const uint8_t byte : random_bytes<8>()) seed = seed << 8 | byte;
  return seed >> 11;  // 53 bits: a number that JSON's readers keep exactly
}

bool has(const json& body, const char* name) { return body.contains(name) && !body[name].is_null(); }

template <class T>
T value(const json& body, const char* name, T standard) {
  return has(body, name) ? body[name].get<T>() : standard;
}

// 3.0 is an integer, too.
int64_t integer(const json& body, const char* name, int64_t standard) {
  return has(body, name) ? static_cast<int64_t>(body[name].get<double>()) : standard;
}

std::optional<std::string> text(const json& body, const char* name) {
  return has(body, name) ? std::optional(body[name].get<std::string>()) : std::nullopt;
}

constexpr double kForbids = -100;  // a bias that low forbids the token, as with OpenAI

SamplerParams read_sampler(const json& b, double temperature, double top_p) {
  SamplerParams s;
  s.repetition_penalty = value(b, "repetition_penalty", 1.0);
  s.presence_penalty = value(b, "presence_penalty", 0.0);
  s.frequency_penalty = value(b, "frequency_penalty", 0.0);
  s.seed = static_cast<uint64_t>(has(b, "seed") ? integer(b, "seed", 0) : static_cast<int64_t>(random_seed()));
  if (has(b, "logit_bias")) {
    for (const auto& [id, bias] : b["logit_bias"].items()) {
      const auto x = bias.get<double>();
      s.logit_bias[std::stoi(id)] = x <= kForbids ? -std::numeric_limits<double>::infinity() : x;
    }
  }
  s.temperature = value(b, "temperature", temperature);
  // The likeliest token passes every filter, so that without a temperature none of them changes anything.
  if (s.temperature == 0) return s;
  s.top_k = integer(b, "top_k", 0);
  s.top_p = value(b, "top_p", top_p);
  s.min_p = value(b, "min_p", 0.0);
  if (s.top_p == 0) {
    s.top_p = 1;
    s.top_k = 1;
  }
  return s;
}

std::vector<std::string> read_stops(const json& b) {
  if (!has(b, "stop")) return {};
  if (b["stop"].is_string()) return {b["stop"].get<std::string>()};
  return b["stop"].get<std::vector<std::string>>();
}

std::string content_text(const json& content) {
  if (content.is_string()) return content.get<std::string>();
  std::string out;
  for (const json& part : content) out += part["text"].get<std::string>();
  return out;
}

std::vector<text::Message> read_messages(const json& messages) {
  std::vector<text::Message> out;
  for (const json& m : messages) {
    const auto role = m["role"].get<std::string>();
    out.push_back({role == "developer" ? "system" : role, content_text(m["content"])});
  }
  return out;
}

Input text_input(std::string prompt) {
  Input in;
  in.text = std::move(prompt);
  return in;
}

std::vector<int32_t> read_ids(const json& list) {
  std::vector<int32_t> ids;
  for (const json& id : list) ids.push_back(static_cast<int32_t>(id.get<double>()));
  return ids;
}

Input ids_input(const json& list) {
  Input in;
  in.ids = read_ids(list);
  return in;
}

// A text, ids, or a list of either.
std::vector<Input> completion_inputs(const json& prompt) {
  std::vector<Input> out;
  if (prompt.is_string()) {
    out.push_back(text_input(prompt));
  } else if (prompt[0].is_number()) {
    out.push_back(ids_input(prompt));
  } else {
    for (const json& one : prompt) out.push_back(one.is_string() ? text_input(one) : ids_input(one));
  }
  return out;
}

void read_generate(const json& b, Asked& asked, GenerateRequest& r) {
  r.input = text_input(b["prompt"]);
  r.max_tokens = integer(b, "max_tokens", 512);
  r.thread.conversation = text(b, "conversation_id");
  asked.store = value(b, "store", true);
  r.thread.keep = asked.store && !r.thread.conversation;
}

void read_chat(const json& b, GenerateRequest& r) {
  r.input.messages = read_messages(b["messages"]);
  r.max_tokens = integer(b, has(b, "max_completion_tokens") ? "max_completion_tokens" : "max_tokens", 512);
  r.n = integer(b, "n", 1);
  if (value(b, "logprobs", false)) r.logprobs = integer(b, "top_logprobs", 0);
}

void read_response(const json& b, Asked& asked, GenerateRequest& r) {
  r.thread.instructs = has(b, "instructions");
  if (r.thread.instructs) r.input.messages.push_back({"system", b["instructions"].get<std::string>()});
  if (b["input"].is_string()) {
    r.input.messages.push_back({"user", b["input"].get<std::string>()});
  } else {
    for (text::Message& m : read_messages(b["input"])) r.input.messages.push_back(std::move(m));
  }
  r.max_tokens = integer(b, "max_output_tokens", 512);
  asked.previous_response = r.thread.previous_response = text(b, "previous_response_id");
  r.thread.conversation = text(b, "conversation");
  asked.store = value(b, "store", true);
  r.thread.keep = asked.store && !r.thread.conversation;
  r.thread.discard = !asked.store;
  asked.echo = {{"temperature", value(b, "temperature", 1.0)},
                {"top_p", value(b, "top_p", 1.0)},
                {"max_output_tokens", r.max_tokens},
                {"instructions", r.thread.instructs ? b["instructions"] : json()},
                {"metadata", has(b, "metadata") ? b["metadata"] : json::object()}};
}

}  // namespace

const char* path_of(Endpoint e) {
  static constexpr std::array kPaths = {"/generate", "/v1/completions", "/v1/chat/completions", "/v1/responses"};
  return kPaths[static_cast<size_t>(e)];
}

const char* schema_of(Endpoint e) {
  static constexpr std::array kSchemas = {"generate", "completion", "chat", "response"};
  return kSchemas[static_cast<size_t>(e)];
}

const char* id_prefix_of(Endpoint e) {
  static constexpr std::array kPrefixes = {"gen-", "cmpl-", "chatcmpl-", "resp_"};
  return kPrefixes[static_cast<size_t>(e)];
}

std::string new_id(const std::string& prefix) {
  std::string out = prefix;
  for (const uint8_t byte : random_bytes<12>()) out += fmt::format("{:02x}", byte);
  return out;
}

Asked read_request(Endpoint endpoint, const json& b, const KeyInfo& key, const Clock& clock,
                   const ServedModels& models) {
  Asked asked;
  asked.endpoint = endpoint;
  asked.id = new_id(id_prefix_of(endpoint));
  asked.created = std::chrono::duration_cast<std::chrono::seconds>(clock.wall().time_since_epoch()).count();
  asked.stream = value(b, "stream", false);
  asked.user = text(b, "user").value_or("");
  if (has(b, "stream_options")) asked.include_usage = value(b["stream_options"], "include_usage", false);

  const bool of_generate = endpoint == Endpoint::kGenerate;
  GenerateRequest r;
  r.id = asked.id;
  r.tenant = key.tenant;
  if (const auto model = text(b, "model")) r.adapter = adapter_named(models, *model);
  asked.model = with_adapter(models, r.adapter).id;
  asked.adapted = r.adapter >= 0;
  r.sampler = read_sampler(b, of_generate ? 0.7 : 1.0, of_generate ? 0.9 : 1.0);
  r.stops = read_stops(b);
  r.ignore_eos = value(b, "ignore_eos", false);
  r.priority = static_cast<int>(integer(b, "priority", 0));
  if (r.priority > key.limits.priority && !key.tenant.empty()) {
    throw ServeError(
        403, "priority_not_allowed",
        fmt::format("[request] 'priority' is {}, this key's highest is {}", r.priority, key.limits.priority),
        "priority");
  }
  switch (endpoint) {
    case Endpoint::kGenerate:
      read_generate(b, asked, r);
      break;
    case Endpoint::kChat:
      read_chat(b, r);
      break;
    case Endpoint::kResponse:
      read_response(b, asked, r);
      break;
    case Endpoint::kCompletion:
      r.max_tokens = integer(b, "max_tokens", 16);
      r.n = integer(b, "n", 1);
      if (has(b, "logprobs")) r.logprobs = integer(b, "logprobs", 0);
      for (Input& in : completion_inputs(b["prompt"])) {
        r.input = std::move(in);
        asked.requests.push_back(r);
        r.id = asked.id + "-" + std::to_string(asked.requests.size());
      }
      return asked;
  }
  asked.requests.push_back(std::move(r));
  return asked;
}

}  // namespace krait::serve
