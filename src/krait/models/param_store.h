// ParamStore: a model's named parameters as they stand in memory (usually views of a mapped file).
#pragma once
#include <map>
#include <string>
#include <vector>

#include "krait/core/tensor.h"
#include "krait/spec/model_spec.h"

namespace krait {

class ThreadPool;

// All parameters of a model, in canonical order and under canonical names (spec/model_spec.h): embedding, blocks with
// their norms, final norm, head (only if it is not tied).
std::vector<ParamSpec> model_params(const ModelSpec&);

// Whether a model packs it as the operand of a matmul: a tied embedding is packed as the head.
bool is_packed(const ParamSpec&, const ModelSpec&);

struct Param {
  Tensor value;          // in the shape of its ParamSpec, in the dtype of the file; vectors never in blocks
  bool neg_exp = false;  // holds −exp(p) instead of p (A_log in GGUF files)
};

class ParamStore {
 public:
  void set(const std::string& name, Param p) { params_[name] = std::move(p); }
  bool has(const std::string& name) const { return params_.contains(name); }
  const Param& get(const std::string& name) const;  // throws kInternal if absent
  const std::map<std::string, Param>& all() const { return params_; }

  Tensor f32(const std::string& name) const;      // contiguous f32 copy of p (log(−v) if it holds −exp(p))
  Tensor neg_exp(const std::string& name) const;  // −exp(p)

 private:
  std::map<std::string, Param> params_;
};

// Contiguous f32 copy of a f32, f64, bf16, f16 or block tensor; throws kBadData on another dtype.
Tensor to_f32(const Tensor& t);

// f32 -> kF32, kBF16 or kF16, rounded to nearest even.
Tensor from_f32(const Tensor& t, DType dtype);

// Converts every matrix and table of the model (not the vectors) to `dtype`.
void cast_matrices(ParamStore& params, const ModelSpec& spec, DType dtype);

// NaNs and infinities among the elements of a float or block tensor; `pool`: who shares the work, or null.
int64_t count_non_finite(const Tensor& t, ThreadPool* pool = nullptr);

}  // namespace krait
