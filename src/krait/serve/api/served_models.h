// ServedModel: what a client may name as `model`: the model itself, and the same with each of its adapters.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace krait::serve {

struct ServedModel {
  std::string id;            // as clients name it
  int64_t created = 0;       // of its files, unix seconds
  uint64_t fingerprint = 0;  // Model::fingerprint() with the adapter
};
// [1 + adapters]: the model as it is, then its adapters in the order of Model::adapters().
using ServedModels = std::vector<ServedModel>;

// The adapter behind a name, −1: none. Throws ServeError 404 "model_not_found".
int32_t adapter_named(const ServedModels& models, const std::string& id);
inline const ServedModel& with_adapter(const ServedModels& models, int32_t adapter) {
  return models[static_cast<size_t>(int64_t{adapter} + 1)];
}
// Null: none of them.
const ServedModel* with_fingerprint(const ServedModels& models, uint64_t fingerprint);

}  // namespace krait::serve
