// JSON bodies -> GenerateRequests. The schemas have been checked before; what remains are rules of this model.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "krait/serve/api/served_models.h"
#include "krait/serve/clock.h"
#include "krait/serve/ops/keys.h"
#include "krait/serve/service/service.h"

namespace krait::serve {

enum class Endpoint : uint8_t { kGenerate, kCompletion, kChat, kResponse };
const char* path_of(Endpoint);       // "/v1/completions"
const char* schema_of(Endpoint);     // "completion"
const char* id_prefix_of(Endpoint);  // "cmpl-"

// What a body asks for: one request a prompt, and how it is to be answered.
struct Asked {
  Endpoint endpoint = Endpoint::kGenerate;
  std::string id;                         // of the response
  std::string model;                      // that answers
  bool adapted = false;                   // by an adapter
  int64_t created = 0;                    // unix seconds
  std::vector<GenerateRequest> requests;  // several: a list of prompts; the first one's id is `id`
  std::string user;                       // as the client says: for the log
  bool stream = false, include_usage = false, store = false;
  std::optional<std::string> previous_response;
  nlohmann::json echo;  // fields that come back: metadata, temperature, …
};

// `body` fits the endpoint's schema; without a `model` it asks the first one. Throws ServeError 400, 404 for a model
// that there is not.
Asked read_request(Endpoint endpoint, const nlohmann::json& body, const KeyInfo& key, const Clock& clock,
                   const ServedModels& models);

// prefix + 24 random hex digits.
std::string new_id(const std::string& prefix);

}  // namespace krait::serve
