// From a checkpoint on disk to a Model.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "krait/io/checkpoint.h"
#include "krait/models/family.h"
#include "krait/models/model.h"

namespace krait {

enum class FiniteCheck {
  kAll,
  kUnpacked,  // not the matrices that a Model packs, and checks as it does: Model::finite()
};
// Matches every parameter of `spec` with a tensor of the checkpoint. Throws one kBadData that lists every missing,
// extra, misshapen or non-finite tensor.
ParamStore load_params(const io::Checkpoint&, const FamilyInfo&, const ModelSpec&, ThreadPool* pool = nullptr,
                       FiniteCheck = FiniteCheck::kAll);

struct LoadedModel {
  std::shared_ptr<const io::Checkpoint> checkpoint;
  const FamilyInfo* family = nullptr;
  std::unique_ptr<Model> model;
};
// What a model's adapters are, once its architecture is known.
struct WithAdapters {
  std::function<Adapters(const ModelSpec&)> read;  // may be empty: none
  int32_t default_adapter = -1;
};
// Opens a folder or file of any supported dialect. `cast`: hold matrices and embeddings in this type instead of the
// file's.
LoadedModel load_model(const std::filesystem::path&, const Runtime&, std::optional<DType> cast = {},
                       const WithAdapters& with = {});

}  // namespace krait
