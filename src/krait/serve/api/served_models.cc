#include "krait/serve/api/served_models.h"

#include <fmt/format.h>

#include <algorithm>

#include "krait/serve/serve_error.h"
#include "krait/text/utf8.h"

namespace krait::serve {

int32_t adapter_named(const ServedModels& models, const std::string& id) {
  const auto it = std::ranges::find(models, id, &ServedModel::id);
  if (it != models.end()) return static_cast<int32_t>(it - models.begin()) - 1;
  throw ServeError(404, "model_not_found",
                   fmt::format("[models] there is no model '{}' here; /v1/models lists them",
                               text::escape_controls(id.substr(0, 128))),
                   "model");
}

const ServedModel* with_fingerprint(const ServedModels& models, uint64_t fingerprint) {
  const auto it = std::ranges::find(models, fingerprint, &ServedModel::fingerprint);
  return it == models.end() ? nullptr : &*it;
}

}  // namespace krait::serve
