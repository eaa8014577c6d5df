// Api: the routes of the server (docs/http.md).
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "krait/serve/api/context.h"
#include "krait/serve/api/query.h"
#include "krait/serve/http/exchange.h"

namespace krait::serve {

// A route as the specification and the router see it.
struct Route {
  const char* method;
  const char* path;  // "/v1/states/{conversation_id}/fork"
  const char* summary;
  const char* request;      // name of its schema; "": no body; "binary": a state file
  const char* answer;       // name of its schema (openapi.cc); "": no body; "binary", "text": of that type
  std::vector<int> errors;  // statuses beside 200 and those that every route may give
  bool guarded = true;      // wants an API key
  std::vector<QueryNumber> query = {};
};
const std::vector<Route>& routes();

class Api {
 public:
  explicit Api(ApiContext& context);
  ~Api();
  void handle(const std::shared_ptr<Exchange>& exchange);  // a Handler; never throws
  // HttpOptions::admit: nobody without a key sends a body. Throws ServeError 401.
  void admit(const HttpRequest& head) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The OpenAPI 3.1 document of all routes.
std::string openapi_document(const ApiOptions& options);

// The body of an error of the HTTP layer.
std::string http_error_body(int status, const std::string& message);

}  // namespace krait::serve
