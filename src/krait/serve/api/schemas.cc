#include "krait/serve/api/schemas.h"

#include <nlohmann/json.hpp>

#include "krait/core/error.h"
#include "krait/serve/api/schema.h"

namespace krait::serve {
namespace {

using nlohmann::json;

// null stands for "not given", as OpenAI's clients send it.
json number(double least, double most, const char* what, json standard = nullptr) {
  return {{"type", {"number", "null"}},
          {"minimum", least},
          {"maximum", most},
          {"description", what},
          {"default", std::move(standard)}};
}
json integer(int64_t least, int64_t most, const char* what, json standard = nullptr) {
  return {{"type", {"integer", "null"}},
          {"minimum", least},
          {"maximum", most},
          {"description", what},
          {"default", std::move(standard)}};
}
json boolean(const char* what, bool standard) {
  return {{"type", {"boolean", "null"}}, {"description", what}, {"default", standard}};
}
json string(size_t least, const char* what) {
  return {{"type", "string"}, {"minLength", least}, {"description", what}};
}
json name(const char* what) {
  return {{"type", {"string", "null"}}, {"maxLength", 128}, {"pattern", "^[A-Za-z0-9_-]+$"}, {"description", what}};
}

json object(json properties, json required = json::array()) {
  return {{"type", "object"},
          {"properties", std::move(properties)},
          {"required", std::move(required)},
          {"additionalProperties", false}};
}

// A regular expression for the decimal numbers 0 … n-1, without leading zeros.
std::string numbers_below(int64_t n) {
  const std::string last = std::to_string(n - 1);
  std::string out = "^(";
  for (size_t digits = 1; digits < last.size(); ++digits) {  // shorter ones
    out += digits == 1 ? "[0-9]|" : "[1-9][0-9]{" + std::to_string(digits - 1) + "}|";
  }
  for (size_t i = 0; i < last.size(); ++i) {  // as long, smaller from digit i on
    const char least = i == 0 && last.size() > 1 ? '1' : '0';
    if (last[i] == least) continue;
    out += last.substr(0, i) + "[" + least + "-" + static_cast<char>(last[i] - 1) + "]";
    if (i + 1 < last.size()) out += "[0-9]{" + std::to_string(last.size() - i - 1) + "}";
    out += "|";
  }
  return out + last + ")$";
}

json token_ids(int64_t vocab) {
  return {{"type", "array"},
          {"items", {{"type", "integer"}, {"minimum", 0}, {"maximum", vocab - 1}}},
          {"minItems", 1},
          {"description", "token ids"}};
}

json stop_schema() {
  const json one = {{"type", "string"}, {"minLength", 1}, {"maxLength", 256}};
  return {{"anyOf", json::array({one, {{"type", "array"}, {"items", one}, {"maxItems", 16}}, {{"type", "null"}}})},
          {"description", "texts that end the answer; not part of it"}};
}

void add_sampling(json& p, const ApiOptions& o, double temperature, double top_p) {
  p["temperature"] = number(0, 100, "0: always the likeliest token", temperature);
  p["top_p"] =
      number(0, 1, "only the likeliest tokens that hold this share of the probability; 0: the likeliest alone", top_p);
  p["top_k"] = integer(0, o.vocab, "only the k likeliest tokens; 0: all", 0);
  p["min_p"] = number(0, 1, "only tokens at least this likely, relative to the likeliest", 0);
  p["repetition_penalty"] = number(0.001, 1000, "divides the logits of tokens already read; 1: none", 1);
  p["presence_penalty"] = number(-1000, 1000, "subtracted from the logits of tokens already read", 0);
  p["frequency_penalty"] = number(-1000, 1000, "subtracted as often as a token was read", 0);
  p["logit_bias"] = {{"type", {"object", "null"}},
                     {"propertyNames", {{"maxLength", 10}, {"pattern", numbers_below(o.vocab)}}},
                     {"additionalProperties", {{"type", "number"}, {"minimum", -1000}, {"maximum", 1000}}},
                     {"description", "token id: added to its logit; -100 or less forbids the token"}};
  p["seed"] = integer(0, (int64_t{1} << 53) - 1,
                      "the same request with the same seed gets the same answer, always; none: a random one");
  p["stop"] = stop_schema();
  p["ignore_eos"] = boolean("go on after the model's end-of-text token", false);
  p["priority"] = integer(-100, 100, "larger ones first; a key may limit it", 0);
  p["stream"] = boolean("answer as server-sent events", false);
}

// Not an `enum`: a model that there is not is an error 404.
json model_schema(const ApiOptions& o, json type = "string") {
  std::string what = "the model, or an adapter of it:";
  for (const ServedModel& m : o.models) what += (&m == &o.models[0] ? " " : ", ") + m.id;
  return {{"type", std::move(type)}, {"description", std::move(what)}};
}

json user_schema() {
  return {{"type", {"string", "null"}}, {"maxLength", 512}, {"description", "goes to the server's log"}};
}

json stream_options() {
  return {{"anyOf", json::array({object({{"include_usage", boolean("a last chunk with the usage", false)}}),
                                 {{"type", "null"}}})},
          {"description", "only with stream"}};
}

json max_tokens_schema(const ApiOptions& o, int64_t standard) {
  return integer(0, o.max_tokens, "most tokens of the answer; 0: the prompt is read, and nothing more", standard);
}

json generate_schema(const ApiOptions& o) {
  json p = {{"model", model_schema(o, {"string", "null"})},
            {"prompt", string(1, "what to go on from; with a conversation: what comes next in it")},
            {"max_tokens", max_tokens_schema(o, 512)},
            {"conversation_id", name("a conversation to go on with, or to begin under this name; none: a new one")},
            {"store", boolean("keep this as a conversation", true)}};
  add_sampling(p, o, 0.7, 0.9);
  json s = object(std::move(p), {"prompt"});
  s["not"] = {{"properties", {{"store", {{"const", false}}}, {"conversation_id", {{"type", "string"}}}}},
              {"required", {"store", "conversation_id"}},
              {"description", "names a conversation, which store = false says is not to be kept"}};
  return s;
}

// stream_options without stream has no effect, so it is refused.
json only_when_streaming(json s) {
  s["if"] = {{"properties", {{"stream_options", {{"type", "object"}}}}}, {"required", {"stream_options"}}};
  s["then"] = {{"properties", {{"stream", {{"const", true}}}}}, {"required", {"stream"}}};
  return s;
}

json completion_schema(const ApiOptions& o) {
  const json text = string(1, "a text");
  const json ids = token_ids(o.vocab);
  json p = {
      {"model", model_schema(o)},
      {"prompt",
       {{"anyOf", json::array({text,
                               {{"type", "array"}, {"items", text}, {"minItems", 1}, {"maxItems", o.max_prompts}},
                               ids,
                               {{"type", "array"}, {"items", ids}, {"minItems", 1}, {"maxItems", o.max_prompts}}})},
        {"description", "one text, several, or the same as token ids"}}},
      {"max_tokens", max_tokens_schema(o, 16)},
      {"n", integer(1, o.max_n, "answers to each prompt", 1)},
      {"logprobs", integer(0, 20, "with every token: its log probability, and those of so many likeliest ones")},
      {"stream_options", stream_options()},
      {"user", user_schema()}};
  add_sampling(p, o, 1, 1);
  return only_when_streaming(object(std::move(p), {"model", "prompt"}));
}

// Members that answers have and that say nothing: a client may send an answer back as it came.
json nothing() { return {{"anyOf", json::array({{{"type", "null"}}, {{"type", "array"}, {"maxItems", 0}}})}}; }

json content_schema(size_t least) {
  const json part = object({{"type", {{"type", "string"}, {"enum", {"text", "input_text", "output_text"}}}},
                            {"text", string(least, "")},
                            {"annotations", nothing()},
                            {"logprobs", nothing()}},
                           {"type", "text"});
  const json parts = {{"type", "array"}, {"items", part}, {"minItems", least}, {"maxItems", 64}};
  return {{"anyOf", json::array({string(least, "a text"), parts})}};
}

json message_schema(json roles, size_t least) {
  json p = {{"role", {{"type", "string"}, {"enum", std::move(roles)}}},
            {"content", content_schema(least)},
            {"type", {{"const", "message"}}},
            {"id", {{"type", {"string", "null"}}, {"maxLength", 256}}},
            {"status", {{"type", {"string", "null"}}, {"enum", {"completed", "incomplete", "in_progress", nullptr}}}}};
  for (const char* name : {"refusal", "annotations", "audio", "function_call", "tool_calls", "phase"})
    p[name] = nothing();
  return object(std::move(p), {"role", "content"});
}

// There must be something that the user says.
json messages_schema(const char* what) {
  const json user = message_schema({"user"}, 1);
  return {{"type", "array"},
          {"items", {{"anyOf", json::array({user, message_schema({"system", "developer", "assistant"}, 0)})}}},
          {"contains",
           {{"properties", {{"role", {{"const", "user"}}}}},
            {"required", {"role"}},
            {"description", "a message of the user"}}},
          {"minItems", 1},
          {"maxItems", 100'000},
          {"description", what}};
}

json chat_schema(const ApiOptions& o) {
  json p = {{"model", model_schema(o)},
            {"messages", messages_schema("the conversation so far")},
            {"max_tokens", max_tokens_schema(o, 512)},
            {"max_completion_tokens", max_tokens_schema(o, 512)},
            {"n", integer(1, o.max_n, "answers", 1)},
            {"logprobs", boolean("with every token: its log probability", false)},
            {"top_logprobs", integer(0, 20, "and those of so many likeliest ones; wants logprobs")},
            {"response_format",
             {{"anyOf", json::array({object({{"type", {{"const", "text"}}}}, {"type"}), {{"type", "null"}}})},
              {"description", "text is the only one"}}},
            {"stream_options", stream_options()},
            {"user", user_schema()}};
  add_sampling(p, o, 1, 1);
  json s = only_when_streaming(object(std::move(p), {"model", "messages"}));
  const json two = {
      {"properties", {{"max_tokens", {{"type", "integer"}}}, {"max_completion_tokens", {{"type", "integer"}}}}},
      {"required", {"max_tokens", "max_completion_tokens"}},
      {"description", "says the same as max_tokens: one of them"}};
  const json lone_top = {{"properties", {{"top_logprobs", {{"type", "integer"}}}}},
                         {"required", {"top_logprobs"}},
                         {"not", {{"properties", {{"logprobs", {{"const", true}}}}}, {"required", {"logprobs"}}}},
                         {"description", "has no effect without logprobs"}};
  s["not"] = {{"anyOf", json::array({two, lone_top})}};
  return s;
}

json response_schema(const ApiOptions& o) {
  json p = {{"model", model_schema(o)},
            {"input", {{"anyOf", json::array({string(1, "what the user says"), messages_schema("messages")})}}},
            {"instructions",
             {{"type", {"string", "null"}},
              {"description", "a system message before the input, where a conversation begins"}}},
            {"previous_response_id", name("the response to go on from")},
            {"conversation", name("a conversation to go on with, or to begin under this name")},
            {"store", boolean("keep this, so that it can be gone on from", true)},
            {"max_output_tokens", max_tokens_schema(o, 512)},
            {"metadata",
             {{"type", {"object", "null"}},
              {"maxProperties", 16},
              {"propertyNames", {{"maxLength", 64}}},
              {"additionalProperties", {{"type", "string"}, {"maxLength", 512}}},
              {"description", "comes back with the response"}}},
            {"user", user_schema()}};
  add_sampling(p, o, 1, 1);
  json s = object(std::move(p), {"model", "input"});
  const auto both = [](const char* a, const char* b, json of_b, const char* why) {
    return json{
        {"properties", {{a, {{"type", "string"}}}, {b, std::move(of_b)}}}, {"required", {a, b}}, {"description", why}};
  };
  const json text = {{"type", "string"}};
  s["not"] = {{"anyOf", json::array({both("previous_response_id", "instructions", text,
                                          "would stand behind what was read before; a message of the system can stand "
                                          "in the input"),
                                     both("conversation", "previous_response_id", text,
                                          "and conversation both say what to go on from: one of them"),
                                     both("conversation", "store", {{"const", false}},
                                          "is false, and a conversation is kept")})}};
  return s;
}

}  // namespace

RequestSchemas::RequestSchemas(const ApiOptions& o)
    : all_(std::make_unique<json>(json{
          {"generate", generate_schema(o)},
          {"completion", completion_schema(o)},
          {"chat", chat_schema(o)},
          {"response", response_schema(o)},
          {"tokenize", object({{"text", string(0, "what to encode")},
                               {"add_special", boolean("what the model puts before a text", true)},
                               {"parse_special", boolean("special tokens written in the text become their ids", true)}},
                              {"text"})},
          {"detokenize",
           object({{"tokens",
                    {{"type", "array"}, {"items", {{"type", "integer"}, {"minimum", 0}, {"maximum", o.vocab - 1}}}}},
                   {"skip_special", boolean("special tokens have no text", true)}},
                  {"tokens"})},
          {"fork", object({{"conversation_id", name("of the new conversation; none: a new name")},
                           {"turns", integer(0, int64_t{1} << 31, "how many turns it begins with; none: all")}})},
          {"rewind", object({{"turns",
                              {{"type", "integer"},
                               {"minimum", 0},
                               {"maximum", int64_t{1} << 31},
                               {"description", "turns that stay"}}}},
                            {"turns"})}})) {
  for (const auto& [unused, schema] : all_->items()) check_keywords(schema);
}

RequestSchemas::~RequestSchemas() = default;

const json& RequestSchemas::of(const std::string& n) const {
  if (!all_->contains(n)) throw Error(ErrorCode::kInternal, "[schema] there is no request " + n);
  return (*all_)[n];
}

json error_schema() {
  return object({{"error", object({{"message", {{"type", "string"}}},
                                   {"type", {{"type", "string"}}},
                                   {"param", {{"type", {"string", "null"}}}},
                                   {"code", {{"type", {"string", "null"}}}}},
                                  {"message", "type", "param", "code"})}},
                {"error"});
}

}  // namespace krait::serve
