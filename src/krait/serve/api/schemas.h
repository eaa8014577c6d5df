// The schemas of every request and answer: what read_request.cc checks bodies with, and what /openapi.json shows.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "krait/serve/api/context.h"

namespace krait::serve {

struct RequestSchemas {
  explicit RequestSchemas(const ApiOptions& options);
  ~RequestSchemas();
  const nlohmann::json& of(const std::string& name) const;  // "generate", "completion", "chat", "response", …

 private:
  std::unique_ptr<nlohmann::json> all_;
};

nlohmann::json error_schema();

}  // namespace krait::serve
