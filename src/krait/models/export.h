// Writing checkpoints: folders in the transformers or the original form, and GGUF files.
#pragma once
#include <filesystem>
#include <string>

#include "krait/io/atomic_file.h"
#include "krait/io/json.h"
#include "krait/models/param_store.h"

namespace krait {

enum class CheckpointForm : uint8_t {
  kAuto,          // transformers where it can express the model, else the original form
  kTransformers,  // config.json with model_type
  kStateSpaces,   // config.json with d_model, n_layer, ssm_cfg
};

// config.json of the model; throws kUsage saying which setting that form cannot express.
io::Json config_json(const ModelSpec&, CheckpointForm);

// Writes OUT/config.json and OUT/model.safetensors (atomically, the folder is created if need be; an existing
// checkpoint in it is refused with kUsage).
void save_folder(const ModelSpec&, const ParamStore&, const std::filesystem::path& out, CheckpointForm,
                 const io::Poll& poll = {});

// Writes the weights alone into a safetensors file, under the names that the configuration of that form wants.
void save_weights(const ModelSpec&, const ParamStore&, const std::filesystem::path& file, CheckpointForm,
                  const io::Poll& poll = {});

}  // namespace krait
