// What the routes work with: the parts of the server, the model's names and limits.
#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "krait/serve/api/served_models.h"
#include "krait/serve/api/stream_log.h"
#include "krait/serve/cache/conversations.h"
#include "krait/serve/ops/keys.h"
#include "krait/serve/ops/metrics.h"
#include "krait/serve/service/service.h"
#include "krait/serve/workers.h"
#include "krait/text/tokenizer.h"

namespace spdlog {
class logger;
}

namespace krait::serve {

struct ApiOptions {
  ServedModels models;
  std::string version;                                           // of the program
  int64_t vocab = 0;                                             // ids that may stand in a prompt and be sampled
  int64_t state_bytes = 0;                                       // of one sequence
  std::string cors_origin;                                       // Access-Control-Allow-Origin; empty: none is sent
  int64_t max_tokens = 1'000'000, max_n = 64, max_prompts = 64;  // a request
  bool log_prompts = false;
};

// Everything outlives the routes.
struct ApiContext {
  ApiOptions options;
  Service& service;
  PrefixCache& cache;
  Conversations& conversations;
  const text::Tokenizer& tokenizer;
  bool has_chat = false;
  Keys& keys;
  Metrics& metrics;
  StreamLog& streams;
  Workers& workers;        // never wait for a store
  Workers& store_workers;  // may
  const Clock& clock;
  spdlog::logger& log;
  const HttpServer* http = nullptr;
  Store* disk = nullptr;
  Store* redis = nullptr;
  std::atomic<bool> draining = false;
};

}  // namespace krait::serve
