// The OpenAPI 3.1 document, made from the table of routes and the schemas that requests are checked with.
#include <map>
#include <nlohmann/json.hpp>

#include "krait/serve/api/api.h"
#include "krait/serve/api/schemas.h"

namespace krait::serve {
namespace {

using nlohmann::json;

json type(const char* name) { return {{"type", name}}; }
json nullable(const char* name) { return {{"type", {name, "null"}}}; }
json list_of(json items) { return {{"type", "array"}, {"items", std::move(items)}}; }

// An object with these members, all of them there.
json members(json properties) {
  json required = json::array();
  for (const auto& [name, unused] : properties.items()) required.push_back(name);
  return {{"type", "object"}, {"properties", std::move(properties)}, {"required", std::move(required)}};
}

json choice(json more) {
  more.update({{"index", type("integer")}, {"finish_reason", nullable("string")}, {"logprobs", nullable("object")}});
  return members(std::move(more));
}

json completion(json one_choice) {
  return members({{"id", type("string")},
                  {"object", type("string")},
                  {"created", type("integer")},
                  {"model", type("string")},
                  {"choices", list_of(std::move(one_choice))},
                  {"usage", type("object")},
                  {"krait", type("object")}});
}

json conversation() {
  return members({{"conversation_id", type("string")},
                  {"model", nullable("string")},
                  {"created", type("integer")},
                  {"last_used", type("integer")},
                  {"turns", type("integer")}});
}

json answer_schemas() {
  json whole = conversation();
  whole["properties"]["history"] = list_of(type("object"));
  const json model = members({{"id", type("string")},
                              {"object", type("string")},
                              {"created", type("integer")},
                              {"owned_by", type("string")},
                              {"parent", nullable("string")}});
  return {
      {"generated", members({{"text", type("string")},
                             {"model", type("string")},
                             {"tokens_generated", type("integer")},
                             {"latency_ms", type("number")},
                             {"tokens_per_second", type("number")},
                             {"finish_reason", type("string")},
                             {"conversation_id", nullable("string")},
                             {"usage", type("object")},
                             {"cache_miss", type("string")},
                             {"seed", type("integer")},
                             {"timing", type("object")}})},
      {"completion", completion(choice({{"text", type("string")}}))},
      {"chat_completion", completion(choice({{"message", type("object")}}))},
      {"response", members({{"id", type("string")},
                            {"object", type("string")},
                            {"status", type("string")},
                            {"output", list_of(type("object"))},
                            {"usage", nullable("object")}})},
      {"models", members({{"object", type("string")}, {"data", list_of(model)}})},
      {"model", model},
      {"tokens", members({{"tokens", list_of(type("integer"))}, {"count", type("integer")}})},
      {"text", members({{"text", type("string")}})},
      {"conversations", members({{"object", type("string")}, {"data", list_of(conversation())}})},
      {"conversation", std::move(whole)},
      {"deleted", members({{"conversation_id", type("string")}, {"deleted", type("boolean")}})},
      {"health", members({{"status", type("string")}, {"model_loaded", type("boolean")}})},
      {"openapi", type("object")},
  };
}

// Media types of answers that are not JSON.
const std::map<std::string, const char*> kMedia = {{"binary", "application/octet-stream"},
                                                   {"stream", "text/event-stream"},
                                                   {"metrics", "text/plain"},
                                                   {"page", "text/html"},
                                                   {"style", "text/css"},
                                                   {"script", "text/javascript"}};

json reference(const std::string& name) { return {{"$ref", "#/components/schemas/" + name}}; }

json content_of(const std::string& answer, bool streams) {
  if (const auto it = kMedia.find(answer); it != kMedia.end()) return {{it->second, {{"schema", type("string")}}}};
  json content = {{"application/json", {{"schema", reference("answer_" + answer)}}}};
  if (streams) content["text/event-stream"] = json::object();
  return content;
}

json parameters_of(const Route& r) {
  json out = json::array();
  const std::string path = r.path;
  const auto in_path = [&](const char* name) {
    out.push_back(
        {{"name", name},
         {"in", "path"},
         {"required", true},
         {"schema", {{"type", "string"}, {"minLength", 1}, {"maxLength", 128}, {"pattern", "^[A-Za-z0-9_-]+$"}}}});
  };
  for (const char* name : {"conversation_id", "response_id", "model"}) {
    if (path.find("{" + std::string(name) + "}") != std::string::npos) in_path(name);
  }
  for (const QueryNumber& q : r.query) {
    out.push_back({{"name", q.name},
                   {"in", "query"},
                   {"required", false},
                   {"schema", {{"type", "integer"}, {"minimum", q.least}, {"maximum", q.most}}}});
  }
  if (path == "/v1/streams/{response_id}") {
    out.push_back({{"name", "Last-Event-ID"}, {"in", "header"}, {"required", false}, {"schema", type("string")}});
  }
  return out;
}

json operation(const Route& r) {
  const std::string request = r.request, answer = r.answer;
  const bool has_body = !request.empty();
  json op = {{"summary", r.summary}, {"responses", json::object()}};
  if (const json p = parameters_of(r); !p.empty()) op["parameters"] = p;
  if (request == "binary") {
    op["requestBody"] = {
        {"required", true},
        {"content", {{"application/octet-stream", {{"schema", {{"type", "string"}, {"format", "binary"}}}}}}}};
  } else if (has_body) {
    op["requestBody"] = {{"required", true}, {"content", {{"application/json", {{"schema", reference(request)}}}}}};
  }
  const bool streams =
      answer == "generated" || answer == "completion" || answer == "chat_completion" || answer == "response";
  op["responses"]["200"] = {{"description", "OK"}, {"content", content_of(answer, streams)}};
  std::vector<int> errors = r.errors;
  errors.insert(errors.end(), {400, 403, 405, 431, 500, 503});
  if (has_body) errors.insert(errors.end(), {408, 413, 415});
  if (r.guarded) errors.insert(errors.end(), {401, 429});
  for (const int status : errors) {
    op["responses"][std::to_string(status)] = {{"description", "an error"},
                                               {"content", {{"application/json", {{"schema", reference("error")}}}}}};
  }
  if (answer == "health") op["responses"]["503"]["content"]["application/json"]["schema"] = reference("answer_health");
  if (r.guarded) op["security"] = json::array({{{"key", json::array()}}});
  return op;
}

}  // namespace

std::string openapi_document(const ApiOptions& o) {
  const RequestSchemas requests(o);
  json schemas = {{"error", error_schema()}};
  json paths = json::object();
  for (const Route& r : routes()) {
    std::string method = r.method;
    for (char& c : method) c = static_cast<char>(c | 0x20);
    paths[r.path][method] = operation(r);
    const std::string name = r.request;
    if (!name.empty() && name != "binary") schemas[name] = requests.of(name);
  }
  const json answers = answer_schemas();
  for (const auto& [name, schema] : answers.items()) schemas["answer_" + name] = schema;
  return json{
      {"openapi", "3.1.0"},
      {"info", {{"title", "Krait"}, {"version", o.version}, {"description", "Conversations with state space models."}}},
      {"paths", std::move(paths)},
      {"components",
       {{"schemas", std::move(schemas)}, {"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}}}}
      .dump();
}

}  // namespace krait::serve
