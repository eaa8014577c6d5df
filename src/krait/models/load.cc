#include "krait/models/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "krait/core/error.h"
#include "krait/io/mapped_file.h"

namespace krait {
namespace {

// Shapes agree if they differ only by dimensions of 1 ([C, 1, W] and [C, W]).
bool same_but_ones(const Shape& a, const Shape& b) {
  std::vector<int64_t> x, y;
  for (int64_t d : a.dims())
    if (d != 1) x.push_back(d);
  for (int64_t d : b.dims())
    if (d != 1) y.push_back(d);
  return x == y;
}

// A gated norm [E] is stored as [G, E/G] in GGUF files.
bool fits(const Shape& have, const Shape& want) {
  return same_but_ones(have, want) || (want.rank() == 1 && have.rank() == 2 && have.numel() == want.numel());
}

bool usable(const ParamSpec& p, DType t) {
  const bool matrix_type = t == DType::kF32 || t == DType::kBF16 || t == DType::kF16 || is_block_type(t);
  return matrix_type || (p.role == ParamRole::kVector && t == DType::kF64);
}

// The tensor in the parameter's shape. Vectors leave their blocks, which rows of another length could not keep.
Tensor in_shape(const Tensor& t, const ParamSpec& p) {
  const bool widen = p.role == ParamRole::kVector && is_block_type(t.dtype());
  return (widen ? to_f32(t) : t).reshape(p.shape);
}

class Problems {
 public:
  void add(std::string line) { lines_.push_back(std::move(line)); }
  bool any() const { return !lines_.empty(); }
  void raise_if_any(const io::Checkpoint& c) const {
    if (lines_.empty()) return;
    constexpr size_t kShown = 20;
    std::string all = fmt::format("[load] {}: {} problem(s):", c.path().string(), lines_.size());
    for (size_t i = 0; i < lines_.size() && i < kShown; ++i) all += "\n  " + lines_[i];
    if (lines_.size() > kShown) all += fmt::format("\n  and {} more", lines_.size() - kShown);
    fail_data(all);
  }

 private:
  std::vector<std::string> lines_;
};

void check_finite(const Tensor& t, const std::string& name, ThreadPool* pool, Problems& problems) {
  if (const int64_t n = count_non_finite(t, pool); n > 0) {
    problems.add(fmt::format("not finite: {} of {} values of {} are NaN or infinite", n, t.numel(), name));
  }
}

// A file that holds A_log where −exp(A_log) belongs would run, wrongly (trap C1).
void check_negative(const Tensor& t, const std::string& name, Problems& problems) {
  const Tensor v = to_f32(t);
  const auto n = std::count_if(v.f32(), v.f32() + v.numel(), [](float a) { return a > 0; });
  if (n > 0)
    problems.add(fmt::format("not negative: {} of {} values of {}, which holds -exp(A_log)", n, v.numel(), name));
}

// A tied model may still store its head; it must then be the embedding.
void check_tied_head(const io::Checkpoint& c, const FamilyInfo& f, const ModelSpec& spec, std::set<std::string>& used,
                     Problems& problems) {
  const std::string head = f.source(c, spec, kHeadName).name;
  const std::string table = f.source(c, spec, kEmbeddingName).name;
  if (!spec.tie_embeddings || !c.has(head) || !c.has(table)) return;
  used.insert(head);
  const Tensor a = c.tensor(head), b = c.tensor(table);
  const bool same = a.shape() == b.shape() && a.dtype() == b.dtype() &&
                    (a.bytes() == b.bytes() || std::memcmp(a.bytes(), b.bytes(), static_cast<size_t>(a.nbytes())) == 0);
  for (const Tensor& t : {a, b}) io::MappedFile::release_pages(t.bytes(), static_cast<size_t>(t.nbytes()));
  if (!same) problems.add(fmt::format("{} differs from {}, but the configuration ties them", head, table));
}

// Settings that no model can have; every one is named.
void check_settings(const ModelSpec& spec) {
  std::string bad;
  const auto add = [&](const std::string& what, double value) { bad += fmt::format("\n  {} is {}", what, value); };
  if (!(spec.norm_eps > 0 && spec.norm_eps <= 1)) add("the epsilon of the norms", spec.norm_eps);
  for (const int32_t id : spec.eos_ids) {
    if (id < 0 || id >= spec.padded_vocab_size) add("an end-of-text id, outside the vocabulary,", id);
  }
  if (!spec.blocks.empty()) {  // a family fills in the same settings for every layer
    const auto& values = spec.blocks.front().config.values();
    for (const auto& [key, value] : values) {
      const bool may_be_infinite = key == "dt_limit_max" && value > 0;
      if (!std::isfinite(value) && !may_be_infinite) add(key, value);
      if (value < 0) add(key, value);
    }
    const auto low = values.find("dt_limit_min"), high = values.find("dt_limit_max");
    if (low != values.end() && high != values.end() && low->second > high->second) {
      add("the lower limit of dt, above the upper one,", low->second);
    }
  }
  if (!bad.empty()) fail_data("[config] settings that make no sense:" + bad);
}

}  // namespace

ParamStore load_params(const io::Checkpoint& c, const FamilyInfo& f, const ModelSpec& spec, ThreadPool* pool,
                       FiniteCheck check) {
  check_settings(spec);
  ParamStore store;
  Problems problems;
  std::set<std::string> used;
  for (const ParamSpec& p : model_params(spec)) {
    const WeightSource src = f.source(c, spec, p.name);
    if (!c.has(src.name)) {
      problems.add("missing: " + src.name + " " + p.shape.str());
      continue;
    }
    used.insert(src.name);
    const Tensor t = c.tensor(src.name);
    const bool rows_differ = is_block_type(t.dtype()) && p.role != ParamRole::kVector && t.dim(-1) != p.shape[-1];
    if (!fits(t.shape(), p.shape) || rows_differ) {
      problems.add(
          fmt::format("wrong shape: {} is {}, the configuration wants {}", src.name, t.shape().str(), p.shape.str()));
      continue;
    }
    if (!usable(p, t.dtype())) {
      problems.add(fmt::format("wrong type: {} is {}", src.name, name_of(t.dtype())));
      continue;
    }
    if (check == FiniteCheck::kAll || !is_packed(p, spec)) check_finite(t, src.name, pool, problems);
    if (src.neg_exp) check_negative(t, src.name, problems);
    if (p.role != ParamRole::kVector) io::MappedFile::release_pages(t.bytes(), static_cast<size_t>(t.nbytes()));
    store.set(p.name, {in_shape(t, p), src.neg_exp});
  }
  check_tied_head(c, f, spec, used, problems);
  for (const std::string& name : c.names()) {
    if (!used.contains(name))
      problems.add("extra: " + name + " " + c.shape(name).str() + " belongs to nothing in this architecture");
  }
  if (problems.any() && check != FiniteCheck::kAll) return load_params(c, f, spec, pool);  // which lists them all
  problems.raise_if_any(c);
  return store;
}

LoadedModel load_model(const std::filesystem::path& path, const Runtime& runtime, std::optional<DType> cast,
                       const WithAdapters& with) {
  LoadedModel m;
  m.checkpoint = io::Checkpoint::open(path);
  m.family = &find_family(*m.checkpoint);
  ModelSpec spec = m.family->parse(*m.checkpoint);
  Adapters adapters = with.read ? with.read(spec) : Adapters{};
  // Packing reads every matrix once, and finds there what is not finite; a cast reads them before.
  const FiniteCheck check = cast ? FiniteCheck::kAll : FiniteCheck::kUnpacked;
  ParamStore params = load_params(*m.checkpoint, *m.family, spec, runtime.pool, check);
  if (cast) cast_matrices(params, spec, *cast);
  m.model =
      std::make_unique<Model>(std::move(spec), std::move(params), runtime, std::move(adapters), with.default_adapter);
  if (check == FiniteCheck::kUnpacked && !m.model->finite()) {
    load_params(*m.checkpoint, *m.family, m.model->spec(), runtime.pool);  // throws, and names the tensors
    throw Error(ErrorCode::kInternal, "[load] packing met a value that is not finite, the check of the file none");
  }
  return m;
}

}  // namespace krait
