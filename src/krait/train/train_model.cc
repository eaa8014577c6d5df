#include "krait/train/train_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "krait/core/error.h"
#include "krait/core/memory.h"
#include "krait/train/lora.h"

namespace krait::train {
namespace {

LossSum sum_of(const TokenLosses& losses, std::span<const float> weights) {
  LossSum s;
  for (size_t t = 0; t < weights.size(); ++t) {
    if (weights[t] == 0) continue;
    s.nll += static_cast<double>(weights[t]) * static_cast<double>(losses.nll.f32()[t]);
    s.weight += static_cast<double>(weights[t]);
    if (losses.kl.defined()) s.kl += static_cast<double>(weights[t]) * static_cast<double>(losses.kl.f32()[t]);
  }
  return s;
}

// Tokens [first, first + length) of every sequence of a batch (fewer where it ends); all sequences stay.
data::Batch segment_of(const data::Batch& b, int64_t first, int64_t length) {
  data::Batch r;
  for (int64_t s = 0; s < b.n_seqs(); ++s) {
    const int64_t start = std::min(first, b.spans.length(s)), stop = std::min(first + length, b.spans.length(s));
    const auto at = static_cast<size_t>(b.spans.offset[static_cast<size_t>(s)] + start);
    const auto n = static_cast<size_t>(stop - start);
    r.add(std::span(b.ids).subspan(at, n), std::span(b.targets).subspan(at, n), std::span(b.weights).subspan(at, n));
  }
  return r;
}

int64_t longest(const data::Batch& b) {
  int64_t n = 0;
  for (int64_t s = 0; s < b.n_seqs(); ++s) n = std::max(n, b.spans.length(s));
  return n;
}

}  // namespace

double weight_sum(const data::Batch& b) {
  return std::accumulate(b.weights.begin(), b.weights.end(), 0.0,
                         [](double s, float w) { return s + static_cast<double>(w); });
}

TrainModel::TrainModel(ModelSpec spec, const ParamStore& params, const Runtime& runtime, TrainModelOptions options)
    : spec_(std::move(spec)), runtime_(runtime), options_(std::move(options)) {
  for (const ParamSpec& p : model_params(spec_)) {
    if (options_.trainable ? !options_.trainable(p.name) : options_.adapter.has_value()) {
      masters_.set(p.name, params.get(p.name));
      continue;
    }
    const Tensor value = params.f32(p.name);
    masters_.set(p.name, {value, false});
    trained_.push_back({p, value, {}});
  }
  if (options_.adapter) {
    options_.adapter = clone(*options_.adapter);
    for (auto& [p, value] : adapter_params(*options_.adapter)) trained_.push_back({std::move(p), value, {}});
  }
  if (trained_.empty()) fail_usage("[train] no parameter of the model is trained");
  if (const Model* teacher = options_.distillation.teacher.get();
      teacher != nullptr && teacher->vocab_size() != spec_.vocab_size) {
    fail_usage(fmt::format("[distill] the teacher has {} ids, the model {}: they must have one vocabulary",
                           teacher->vocab_size(), spec_.vocab_size));
  }
  keep_slabs(std::numeric_limits<size_t>::max());
}

TrainModel::~TrainModel() { keep_slabs(kKeptSlabBytes); }

void TrainModel::build() {
  model_.reset();
  parameters_.reset();
  gradients_ = std::make_unique<Gradients>();
  stored_ = masters_;
  watched_.clear();
  for (const Trained& t : trained_) {
    const bool of_model = masters_.has(t.spec.name);
    const bool rounded = of_model && t.spec.role != ParamRole::kVector && options_.weights != DType::kF32;
    const Tensor value = rounded ? from_f32(t.value, options_.weights) : t.value;
    if (of_model) stored_.set(t.spec.name, {value, false});
    gradients_->watch(value);
    watched_.push_back(value);
  }
  parameters_ = std::make_unique<Tape>(*gradients_);
  Runtime rt = runtime_;
  rt.parameters = parameters_.get();
  Adapters adapters;
  if (options_.adapter) adapters.push_back(std::make_shared<const Adapter>(*options_.adapter));
  const int32_t default_adapter = adapters.empty() ? -1 : 0;
  model_ = std::make_unique<Model>(spec_, stored_, rt, std::move(adapters), default_adapter);
}

const Model& TrainModel::model() {
  if (!model_) build();
  return *model_;
}

void TrainModel::begin(int64_t step) {
  step_ = step;
  rows_ = 0;
  for (Trained& t : trained_) t.gradient = {};
  build();
}

void TrainModel::reset_states(int64_t n_seqs) {
  const auto reset = [&](const Model& m, SlotStore& states) {
    if (states.n_slots() < n_seqs) states = SlotStore(m.state_specs(), n_seqs);
    for (int64_t s = 0; s < n_seqs; ++s) m.reset_state(states, s);
  };
  reset(model(), states_);
  if (options_.distillation.teacher) reset(*options_.distillation.teacher, teacher_states_);
}

// Of tokens from `first` on of every sequence of a batch.
Dropout TrainModel::dropout_of(const data::Batch& b, int64_t first) const {
  Dropout d{options_.dropout_seed, static_cast<uint64_t>(step_), {}};
  for (int64_t s = 0; s < b.n_seqs(); ++s) {
    d.first_row.push_back(rows_ + b.spans.offset[static_cast<size_t>(s)] + std::min(first, b.spans.length(s)));
  }
  return d;
}

void TrainModel::keep_states(std::vector<SlotStore>& before) const {
  before.push_back(states_.clone());
  if (options_.distillation.teacher) before.push_back(teacher_states_.clone());
}

void TrainModel::take_states(std::vector<SlotStore>& before) {
  if (options_.distillation.teacher) {
    teacher_states_.copy_from(before.back());
    before.pop_back();
  }
  states_.copy_from(before.back());
  before.pop_back();
}

LossSum TrainModel::run(const data::Batch& b, double scale, Tape* tape, const Dropout& dropout) {
  LossOptions o;
  o.targets = b.targets;
  o.weights = b.weights;
  o.scale = static_cast<float>(scale);
  o.z_loss = options_.z_loss;
  std::optional<Teacher> teacher;
  if (const Distillation& d = options_.distillation; d.teacher) {
    const Tensor x = d.teacher->hidden(b.ids, b.spans, teacher_states_);
    teacher.emplace(Teacher{d.teacher->runtime(), d.teacher->head(), x, d.weight, d.temperature});
    o.teacher = &*teacher;
  }
  return sum_of(model().loss(b.ids, b.spans, states_, o, tape, options_.checkpoint, &dropout), b.weights);
}

// Forward over the segments, keeping the states between them only; then from the last to the first: forward again on a
// tape, and backward.
LossSum TrainModel::run_segments(const data::Batch& b, double scale) {
  const int64_t n_segments = (longest(b) + options_.segment - 1) / options_.segment;
  std::vector<SlotStore> before;
  for (int64_t i = 0; i + 1 < n_segments; ++i) {
    keep_states(before);
    run(segment_of(b, i * options_.segment, options_.segment), scale, nullptr, dropout_of(b, i * options_.segment));
  }
  keep_states(before);
  LossSum sum;
  for (int64_t i = n_segments - 1; i >= 0; --i) {
    take_states(before);
    const data::Batch part = segment_of(b, i * options_.segment, options_.segment);
    const Dropout dropout = dropout_of(b, i * options_.segment);
    Tape tape(*gradients_);
    sum += run(part, scale, &tape, dropout);
    tape.backward();
  }
  return sum;
}

LossSum TrainModel::accumulate(const data::Batch& b, double scale) {
  if (!parameters_) throw Error(ErrorCode::kInternal, "[train] accumulate() without begin()");
  reset_states(b.n_seqs());
  LossSum sum;
  if (options_.segment > 0 && longest(b) > options_.segment) {
    sum = run_segments(b, scale);
  } else {
    const Dropout dropout = dropout_of(b, 0);
    Tape tape(*gradients_);
    sum = run(b, scale, &tape, dropout);
    tape.backward();
  }
  for (int64_t s = 0; s < b.n_seqs(); ++s) model_->reset_state_backward(*gradients_, states_, s);
  gradients_->drop_unwatched();
  rows_ += b.n_tokens();
  return sum;
}

void TrainModel::gradients() {
  parameters_->backward();
  for (size_t i = 0; i < trained_.size(); ++i) trained_[i].gradient = gradients_->total(watched_[i]);
  parameters_.reset();
}

LossSum TrainModel::evaluate(const data::Batch& b) {
  model();
  reset_states(b.n_seqs());
  const int64_t length = longest(b), piece = options_.segment > 0 ? options_.segment : length;
  LossSum sum;
  for (int64_t first = 0; first < length; first += piece) {
    const data::Batch part = segment_of(b, first, piece);
    LossOptions o;
    o.targets = part.targets;
    o.weights = part.weights;
    sum += sum_of(model().loss(part.ids, part.spans, states_, o), part.weights);
  }
  return sum;
}

}  // namespace krait::train
