// What a calibration text shows of each matrix's input: the mean square of every column. Where a column is large, the
// rounding of its weights matters more.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "krait/io/atomic_file.h"
#include "krait/ops/runtime.h"
#include "krait/spec/model_spec.h"

namespace krait::quant {

class ActivationStats final : public MatmulObserver {
 public:
  void matmul(const std::string& weight_name, const Tensor& x) override;

  // E[x_k²] over all rows seen, [K]; empty if the matrix was never used.
  std::vector<float> mean_squares(const std::string& weight_name) const;
  int64_t rows(const std::string& weight_name) const;
  bool empty() const { return columns_.empty(); }

  // A GGUF file of general.type "imatrix" in llama.cpp's layout: for each matrix NAME.in_sum2 [1, K] and NAME.counts
  // [1, 1], by its name in the model's GGUF file. Atomic.
  void save(const std::filesystem::path&) const;
  void write(io::AtomicFile&) const;  // the same, without commit()
  // Throws kBadData unless the file is such a one and belongs to the model: every matrix but the head, no other.
  static ActivationStats load(const std::filesystem::path&, const ModelSpec&);

 private:
  struct Columns {
    std::vector<double> sum;  // Σ x_k²
    int64_t rows = 0;
  };
  std::map<std::string, Columns> columns_;  // by canonical name
};

}  // namespace krait::quant
