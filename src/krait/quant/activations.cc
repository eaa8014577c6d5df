#include "krait/quant/activations.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "krait/core/error.h"
#include "krait/io/gguf.h"
#include "krait/io/problems.h"
#include "krait/models/gguf_names.h"
#include "krait/models/param_store.h"

namespace krait::quant {
namespace {

constexpr const char* kSums = ".in_sum2";
constexpr const char* kCounts = ".counts";

// A tensor of that many finite f32 values >= 0, as doubles.
std::vector<double> read_values(const std::string& file, const std::string& name, const Tensor& t, int64_t n) {
  if (t.dtype() != DType::kF32 || t.numel() != n) {
    fail_data(fmt::format("[stats] {}: {} is {} {}, the model wants {} values of f32", file, name, name_of(t.dtype()),
                          t.shape().str(), n));
  }
  std::vector<double> out(t.f32(), t.f32() + n);
  for (const double v : out) {
    if (!(v >= 0) || !std::isfinite(v)) fail_data(fmt::format("[stats] {}: {} holds {}", file, name, v));
  }
  return out;
}

// Rows that were seen: a whole number of them, rounded to f32 where it is large.
int64_t read_count(const std::string& file, const std::string& name, const Tensor& t) {
  constexpr double kMost = 1e15;
  const double n = read_values(file, name, t, 1).front();
  if (n < 1 || n > kMost || n != std::floor(n)) {
    fail_data(fmt::format("[stats] {}: {} holds {}, expected a whole number from 1 to {:g}", file, name, n, kMost));
  }
  return static_cast<int64_t>(n);
}

}  // namespace

void ActivationStats::matmul(const std::string& weight_name, const Tensor& x) {
  Columns& c = columns_[weight_name];
  const int64_t K = x.dim(1);
  c.sum.resize(static_cast<size_t>(K));
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const float* row = x.f32() + t * x.stride(0);
    for (int64_t k = 0; k < K; ++k) {
      const auto v = static_cast<double>(row[k]);
      c.sum[static_cast<size_t>(k)] += v * v;
    }
  }
  c.rows += x.dim(0);
}

std::vector<float> ActivationStats::mean_squares(const std::string& weight_name) const {
  const auto it = columns_.find(weight_name);
  if (it == columns_.end() || it->second.rows == 0) return {};
  std::vector<float> out;
  for (const double s : it->second.sum) {
    const double kept = static_cast<double>(static_cast<float>(s));  // as a file holds it: both give the same bits
    out.push_back(static_cast<float>(kept / static_cast<double>(it->second.rows)));
  }
  return out;
}

int64_t ActivationStats::rows(const std::string& weight_name) const {
  const auto it = columns_.find(weight_name);
  return it == columns_.end() ? 0 : it->second.rows;
}

void ActivationStats::save(const std::filesystem::path& path) const {
  io::AtomicFile file(path);
  write(file);
  file.commit();
}

void ActivationStats::write(io::AtomicFile& file) const {
  std::vector<io::NamedTensor> tensors;
  for (const auto& [name, c] : columns_) {
    Tensor sums = Tensor::empty({1, static_cast<int64_t>(c.sum.size())}), count = Tensor::empty({1, 1});
    for (size_t k = 0; k < c.sum.size(); ++k) sums.f32()[k] = static_cast<float>(c.sum[k]);
    count.f32()[0] = static_cast<float>(c.rows);
    tensors.push_back({gguf_tensor_name(name) + kSums, sums});
    tensors.push_back({gguf_tensor_name(name) + kCounts, count});
  }
  io::write_gguf(file, {{"general.type", std::string("imatrix")}}, tensors);
}

ActivationStats ActivationStats::load(const std::filesystem::path& path, const ModelSpec& spec) {
  const auto g = io::Gguf::open(path);
  const std::string file = path.string();
  if (g->str_or("general.type", "") != "imatrix") fail_data("[stats] " + file + " holds no activation statistics");
  const auto& all = g->tensors();
  ActivationStats stats;
  std::set<std::string> known;
  io::Problems problems;
  for (const ParamSpec& p : model_params(spec)) {
    if (p.role == ParamRole::kVector) continue;
    const std::string name = gguf_tensor_name(p.name);
    const auto sums = all.find(name + kSums), counts = all.find(name + kCounts);
    if (sums == all.end() || counts == all.end()) {
      const bool head = p.role == ParamRole::kTable || p.name == kHeadName;  // not every program records it
      if (!head) problems.add("nothing on " + name + ": it belongs to another model");
      continue;
    }
    known.insert({sums->first, counts->first});
    Columns c;
    c.sum = read_values(file, sums->first, sums->second, p.shape[-1]);
    if (std::ranges::all_of(c.sum, [](double v) { return v == 0; })) {
      fail_data(fmt::format("[stats] {}: {} is all zeros, which no text leaves behind", file, sums->first));
    }
    c.rows = read_count(file, counts->first, counts->second);
    stats.columns_[p.name] = std::move(c);
  }
  for (const auto& [name, tensor] : all) {
    if (!known.contains(name)) problems.add(name + ": it belongs to another model");
  }
  problems.throw_if_any("stats", file);
  return stats;
}

}  // namespace krait::quant
