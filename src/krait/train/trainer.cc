#include "krait/train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "krait/core/error.h"
#include "krait/train/evaluator.h"

namespace krait::train {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBetweenStops = 64;  // batches that are made before a signal is looked for again

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// For each parameter 2 forward, 2 for the gradient of its input, and 2 for its own if it is trained; 2 for each of a
// teacher. Tied tensors are counted once.
double token_flops(const TrainModel& m) {
  double flops = 0;
  for (const ParamSpec& p : model_params(m.spec())) flops += 4.0 * static_cast<double>(p.shape.numel());
  for (const Trained& t : m.trained()) {
    flops += (m.params().has(t.spec.name) ? 2.0 : 6.0) * static_cast<double>(t.value.numel());
  }
  if (const auto& teacher = m.options().distillation.teacher)
    flops += 2.0 * static_cast<double>(teacher->param_count());
  return flops;
}

}  // namespace

Trainer::Trainer(Parts parts, TrainerOptions options) : parts_(std::move(parts)), options_(std::move(options)) {
  const TrainerOptions& o = options_;
  if (o.batch < 1 || o.micro_batch < 1 || o.batch % o.micro_batch != 0) {
    fail_usage(fmt::format("[train] micro-batches of {} samples do not divide a batch of {}", o.micro_batch, o.batch));
  }
  optimizer_ = make_optimizer(o.optimizer, parts_.model.trained());
  token_flops_ = token_flops(parts_.model);
  if (o.ema <= 0) return;
  for (const Trained& t : parts_.model.trained()) ema_.push_back(t.value.clone());
}

void Trainer::resume(int64_t step) {
  parts_.folder.load(step, state());
  saved_ = step;
}

bool Trainer::due(int64_t every) const {
  return every > 0 && progress_.step > 0 && (progress_.step % every == 0 || progress_.step == options_.schedule.steps);
}

bool Trainer::is_over() const {
  const bool tired = options_.patience > 0 && progress_.since_best >= options_.patience;
  return tired || progress_.step >= options_.schedule.steps;
}

Outcome Trainer::run(const Stop& stop) {
  // What a signal kept the run before this one from doing.
  bool interrupted = due(options_.valid_every) && progress_.validated < progress_.step && !after_step(stop);
  while (!interrupted && !is_over()) interrupted = !step(stop) || !after_step(stop);
  save(true);
  if (interrupted) return Outcome::kInterrupted;
  return progress_.step < options_.schedule.steps ? Outcome::kStopped : Outcome::kDone;
}

bool Trainer::after_step(const Stop& stop) {
  if (due(options_.valid_every) && !validate(stop)) return false;
  if (parts_.write_samples && due(options_.sample_every)) {
    swap_ema();
    std::vector<SampleText> texts;
    std::string failure;
    try {
      texts = parts_.write_samples(parts_.model.model(), progress_.step);
    } catch (const Error& e) {
      failure = e.what();
    }
    swap_ema();
    if (!failure.empty()) give_up(fmt::format("[train] step {}: its sample texts failed: {}", progress_.step, failure));
    if (!texts.empty()) tell([&](Observer& o) { o.on_samples(progress_.step, texts); });
  }
  const bool is_best = options_.keep_best && progress_.best_step == progress_.step;
  if (due(options_.save_every) || is_best) save(true);
  return true;
}

void Trainer::save(bool remove_old) {
  if (saved_ == progress_.step) return;
  if (const std::string broken = not_finite(); !broken.empty()) {
    throw Error(ErrorCode::kFailed, fmt::format("[train] step {} left values in {} that are not finite, so it is not "
                                                "saved; {}",
                                                progress_.step, broken, parts_.folder.last_known()));
  }
  const auto start = Clock::now();
  const auto folder = parts_.folder.save(state());
  if (remove_old) parts_.folder.remove_old(options_.keep_last, options_.keep_best ? progress_.best_step : 0);
  saved_ = progress_.step;
  parts_.observer.on_saved({progress_.step, folder, seconds_since(start)});
}

// The gradients of the mean loss of a step's batch.
LossSum Trainer::read_gradients(const Stop& stop, int64_t& tokens, bool& interrupted) {
  const int64_t n_micro = options_.batch / options_.micro_batch;
  std::vector<data::Batch> batches;
  double weight = 0;
  for (int64_t i = 0; i < n_micro; ++i) {
    batches.push_back(parts_.train.batch(progress_.position, options_.batch, {.micro = i, .n_micro = n_micro}));
    if (i % kBetweenStops == kBetweenStops - 1 && stop()) {
      interrupted = true;
      return {};
    }
    weight += weight_sum(batches.back());
    tokens += batches.back().n_tokens();
  }
  if (!(weight > 0)) {
    fail_data(fmt::format("[train] step {}: none of its {} tokens is to be learned", progress_.step + 1, tokens));
  }
  LossSum sum;
  parts_.model.begin(progress_.step);
  for (const data::Batch& b : batches) {
    if (stop()) {
      interrupted = true;
      return sum;
    }
    sum += parts_.model.accumulate(b, 1 / weight);
  }
  parts_.model.gradients();
  return sum;
}

bool Trainer::step(const Stop& stop) {
  const auto start = Clock::now();
  int64_t tokens = 0;
  bool interrupted = false;
  const LossSum sum = read_gradients(stop, tokens, interrupted);
  if (interrupted) return false;
  std::vector<Trained>& trained = parts_.model.trained();
  const double norm = gradient_norm(trained, parts_.pool);
  if (!std::isfinite(norm) || !std::isfinite(sum.mean()) || !std::isfinite(sum.kl)) diverged(sum.mean());
  const double lr = options_.schedule.at(progress_.step);
  optimizer_->step(trained, progress_.step + 1, lr, clip_scale(norm, options_.clip), parts_.pool);
  parts_.model.changed();
  ++progress_.step;
  progress_.tokens += tokens;
  progress_.position = parts_.train.advance(progress_.position, options_.batch);
  update_ema();

  StepReport r;
  r.step = progress_.step;
  r.steps = options_.schedule.steps;
  r.tokens = progress_.tokens;
  r.loss = sum.mean();
  if (parts_.model.options().distillation.teacher) r.kl = sum.mean_kl();
  r.lr = lr;
  r.grad_norm = norm;
  r.seconds = seconds_since(start);
  r.tokens_per_second = static_cast<double>(tokens) / r.seconds;
  if (options_.peak_flops > 0) r.peak_share = token_flops_ * r.tokens_per_second / options_.peak_flops;
  tell([&](Observer& o) { o.on_step(r); });
  return true;
}

// Early averages forget the fresh weights sooner: the decay of step t is at most (1 + t) / (10 + t).
void Trainer::update_ema() {
  if (ema_.empty()) return;
  const auto t = static_cast<double>(progress_.step);
  const auto decay = static_cast<float>(std::min(options_.ema, (1 + t) / (10 + t)));
  parts_.pool.parallel_for(static_cast<int64_t>(ema_.size()), [&](int64_t i) {
    float* average = ema_[static_cast<size_t>(i)].f32();
    const Tensor& value = parts_.model.trained()[static_cast<size_t>(i)].value;
    for (int64_t e = 0; e < value.numel(); ++e) average[e] += (1 - decay) * (value.f32()[e] - average[e]);
  });
}

// The averages take the place of the weights, and the other way round.
void Trainer::swap_ema() {
  if (ema_.empty()) return;
  for (size_t i = 0; i < ema_.size(); ++i) {
    float* average = ema_[i].f32();
    std::swap_ranges(average, average + ema_[i].numel(), parts_.model.trained()[i].value.f32());
  }
  parts_.model.changed();
}

bool Trainer::validate(const Stop& stop) {
  const auto start = Clock::now();
  swap_ema();
  const auto e = evaluate(parts_.model, *parts_.valid, options_.valid_samples, options_.micro_batch, stop);
  swap_ema();
  if (!e) return false;
  if (!std::isfinite(e->loss)) {
    give_up(fmt::format("[train] the validation loss after step {} is {}", progress_.step, e->loss));
  }
  const bool best = e->loss < progress_.best_loss;
  progress_.validated = progress_.step;
  progress_.since_best = best ? 0 : progress_.since_best + 1;
  if (best) {
    progress_.best_loss = e->loss;
    progress_.best_step = progress_.step;
  }
  const ValidationReport report{progress_.step, e->loss, e->accuracy, best, seconds_since(start)};
  tell([&](Observer& o) { o.on_validation(report); });
  return true;
}

// Backward goes from the head to the embedding: the first gradient that is not finite on that way is nearest to the
// cause.
void Trainer::diverged(double loss) {
  const std::vector<Trained>& trained = parts_.model.trained();
  const auto broken = [](const Trained& t) { return count_non_finite(t.gradient) > 0; };
  const auto first = std::find_if(trained.rbegin(), trained.rend(), broken);
  std::string what = fmt::format("[train] step {} (samples from {} of epoch {} on): the loss is {}", progress_.step + 1,
                                 progress_.position.index, progress_.position.epoch, loss);
  if (first != trained.rend()) {
    what += fmt::format(", and {} of {} gradients are not finite, the first on the way back that of {}",
                        std::ranges::count_if(trained, broken), trained.size(), first->spec.name);
  }
  give_up(what);
}

std::string Trainer::not_finite() const {
  const std::vector<Trained>& trained = parts_.model.trained();
  for (size_t i = 0; i < trained.size(); ++i) {
    if (count_non_finite(trained[i].value) > 0) return trained[i].spec.name;
    if (!ema_.empty() && count_non_finite(ema_[i]) > 0) return "the average of " + trained[i].spec.name;
  }
  return "";
}

// Fails, once the state as it stands is saved, unless its weights are no good.
void Trainer::give_up(const std::string& what) {
  if (const std::string broken = not_finite(); !broken.empty()) {
    throw Error(ErrorCode::kFailed,
                fmt::format("{}; {} itself holds values that are not finite, so nothing is saved; {}", what, broken,
                            parts_.folder.last_known()));
  }
  save(false);
  throw Error(ErrorCode::kFailed, fmt::format("{}; the last good state is saved as {}", what,
                                              RunFolder::checkpoint(parts_.folder.path(), progress_.step).string()));
}

// An observer that fails (a full disk) ends the run, but what was learned is kept.
void Trainer::tell(const std::function<void(Observer&)>& say) {
  try {
    say(parts_.observer);
  } catch (const Error& e) {
    give_up(e.what());
  }
}

}  // namespace krait::train
