#include "krait/serve/serve_error.h"

#include "krait/core/error.h"

namespace krait::serve {

const char* ServeError::type() const {
  switch (status_) {
    case 401:
    case 403:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 409:
      return "conflict_error";
    case 429:
      return "rate_limit_error";
    default:
      return status_ >= 500 ? "server_error" : "invalid_request_error";
  }
}

ServeError current_serve_error() {
  try {
    throw;
  } catch (const ServeError& e) {
    return e;
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kUsage || e.code() == ErrorCode::kBadData) {
      return ServeError(400, "invalid_value", e.what());
    }
  } catch (...) {
  }
  return ServeError(500, "internal_error", "[serve] the request failed inside the server; its log says why");
}

}  // namespace krait::serve
