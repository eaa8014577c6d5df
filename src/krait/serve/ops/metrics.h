// Metrics: what Prometheus reads at /metrics. Names and meanings: docs/http.md.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "krait/serve/cache/conversations.h"
#include "krait/serve/http/server.h"
#include "krait/serve/service/service.h"

namespace krait::serve {

// What is looked at when /metrics is read. Null: not there.
struct MetricSources {
  const Service* service = nullptr;
  const PrefixCache* cache = nullptr;
  const Conversations* conversations = nullptr;
  const HttpServer* http = nullptr;
  Store* disk = nullptr;
  Store* redis = nullptr;
};

// Thread-safe.
class Metrics {
 public:
  // `models`: the model, then its adapters.
  Metrics(const std::vector<std::string>& models, const std::string& version);
  ~Metrics();

  void request(const std::string& endpoint, int status);  // of any kind
  void token();                                           // was written
  // A generation that ended.
  void answer(const std::string& endpoint, const std::string& model, const Answer& answer);
  ServiceProbe probe();

  // Text of version 0.0.4. May block on the stores.
  std::string text(const MetricSources& sources);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krait::serve
