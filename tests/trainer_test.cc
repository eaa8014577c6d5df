// The trainer on tiny models: what a run gives does not depend on how it is computed or where it was interrupted.
#include <gmock/gmock.h>

#include <cstring>
#include <functional>

#include "krait/data/loader.h"
#include "krait/data/tasks/task.h"
#include "krait/data/test_corpus.h"
#include "krait/train/evaluator.h"
#include "krait/train/lora.h"
#include "krait/train/trainer.h"
#include "tests/tiny_models.h"

namespace krait::test {
namespace {

using io::TestFolder;
using testing::HasSubstr;
using train::LrSchedule;
using train::Outcome;
using train::RunFolder;
using train::TrainerOptions;

constexpr int64_t kVocab = 29, kLength = 16;

const data::Corpus& corpus() {
  static const data::TestCorpus documents({300, 17, 40, 90, 64}, kVocab, 400);
  static const data::Corpus all({documents.place()});
  return all;
}

const data::Loader& loader() {
  static const data::Loader l(corpus(), {.length = kLength, .seed = 3});
  return l;
}

const data::Loader& held_out() {
  static const data::Loader l(corpus(), {.length = kLength, .shuffle = false});
  return l;
}

TrainerOptions plan(int64_t steps, int64_t batch = 4, int64_t micro_batch = 4) {
  TrainerOptions o;
  o.schedule = {LrSchedule::Shape::kCosine, 1e-2, 1e-4, steps, steps / 10, 0};
  o.batch = batch;
  o.micro_batch = micro_batch;
  o.save_every = steps;
  return o;
}

// That can be saved: files of its form hold multiples of 128 as widths of MLPs. "tied": with one table for both ends.
ModelSpec trained_spec(const std::string& generation) {
  constexpr std::string_view kTied = " tied";
  const bool tied = generation.ends_with(kTied);
  ModelSpec spec = tiny_spec(tied ? generation.substr(0, generation.size() - kTied.size()) : generation);
  spec.tie_embeddings = tied;
  for (SubBlockSpec& b : spec.blocks) {
    if (b.mixer == "gated_mlp") b.config.set("d_hidden", 128);
  }
  return spec;
}

struct Heard final : train::Observer {
  std::vector<train::StepReport> steps;
  std::vector<train::ValidationReport> validations;
  std::function<void(const train::StepReport&)> then;
  void on_step(const train::StepReport& r) override {
    steps.push_back(r);
    if (then) then(r);
  }
  void on_validation(const train::ValidationReport& r) override { validations.push_back(r); }
};

bool never() { return false; }

// One process of a run: what a program would hold.
struct TrainRun {
  TrainRun(const std::string& generation, const TrainerOptions& o, const fs::path& where, int threads = 1,
           const data::BatchSource& data = loader(), train::TrainModelOptions options = {})
      : threads_(threads),
        runtime{&cpu_kernels(), &threads_},
        model(trained_spec(generation), random_params(trained_spec(generation), 1, DType::kF32, threads_), runtime,
              std::move(options)),
        folder(where, {}, {}),
        trainer({model, data, o.valid_every > 0 ? &held_out() : nullptr, threads_, folder, heard, {}}, o) {}

  // All parameters, one after the other.
  std::vector<float> weights() const {
    std::vector<float> all;
    for (const train::Trained& t : model.trained()) {
      all.insert(all.end(), t.value.f32(), t.value.f32() + t.value.numel());
    }
    return all;
  }

  ThreadPool threads_;
  Runtime runtime;
  train::TrainModel model;
  RunFolder folder;
  Heard heard;
  train::Trainer trainer;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class TrainGenerations : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Tiny, TrainGenerations, testing::ValuesIn(tiny_names()));

TEST_P(TrainGenerations, TwoRunsAndTwoThreadsGiveTheSameBitsAfter200Steps) {
  const TestFolder a, b, c;
  TrainRun first(GetParam(), plan(200), a.path()), second(GetParam(), plan(200), b.path()),
      threads(GetParam(), plan(200), c.path(), 2);
  for (TrainRun* r : {&first, &second, &threads}) EXPECT_EQ(r->trainer.run(never), Outcome::kDone);
  EXPECT_TRUE(same_bits(first.weights(), second.weights()));
  EXPECT_TRUE(same_bits(first.weights(), threads.weights()));
  EXPECT_LT(first.heard.steps.back().loss, 0.5 * first.heard.steps.front().loss);  // and it learns
}

TEST_P(TrainGenerations, AccumulationGivesTheSameBits) {
  const TestFolder a, b;
  TrainRun whole(GetParam(), plan(10, 32, 32), a.path()), parts(GetParam(), plan(10, 32, 8), b.path());
  whole.trainer.run(never);
  parts.trainer.run(never);
  EXPECT_TRUE(same_bits(whole.weights(), parts.weights()));
}

// A tied table gets gradients from both ends.
TEST(Trainer, AccumulationGivesTheSameBitsWithATiedHead) {
  const TestFolder a, b, c;
  TrainRun whole("mamba2 tied", plan(10, 32, 32), a.path()), parts("mamba2 tied", plan(10, 32, 8), b.path()),
      singles("mamba2 tied", plan(10, 32, 1), c.path());
  for (TrainRun* r : {&whole, &parts, &singles}) r->trainer.run(never);
  EXPECT_TRUE(same_bits(whole.weights(), parts.weights()));
  EXPECT_TRUE(same_bits(whole.weights(), singles.weights()));
}

// Trap I4: what is trained is what runs.
TEST_P(TrainGenerations, TrapI4LossOfTrainingIsThatOfTheLogitsOfInference) {
  const TestFolder folder;
  TrainRun run(GetParam(), plan(20), folder.path());
  run.trainer.run(never);
  const data::Batch batch = held_out().samples({}, 3);
  run.model.begin();
  const double trained = run.model.accumulate(batch, 1).mean();
  const Model model(run.model.spec(), run.model.params(), run.runtime);
  double nll = 0;
  for (int64_t s = 0; s < batch.n_seqs(); ++s) {
    const std::span ids = std::span(batch.ids).subspan(static_cast<size_t>(s * kLength), kLength);
    const Tensor logits = all_logits(model, ids);
    for (int64_t t = 0; t < kLength; ++t) {
      const float* row = logits.f32() + t * model.padded_vocab_size();
      double total = 0;
      for (int64_t v = 0; v < model.padded_vocab_size(); ++v) total += std::exp(static_cast<double>(row[v]));
      nll += std::log(total) - static_cast<double>(row[batch.targets[static_cast<size_t>(s * kLength + t)]]);
    }
  }
  EXPECT_NEAR(trained, nll / static_cast<double>(3 * kLength), 1e-6 * trained + 1e-7);
}

// A run stopped amid a pass, as a signal does, goes on to the same bits: weights, averages, and what was the best.
TEST(Trainer, AnInterruptedRunGoesOnToTheSameBits) {
  TrainerOptions o = plan(40, 8, 2);
  o.ema = 0.9;
  o.valid_every = 6;
  o.valid_samples = 5;
  o.keep_best = true;
  const TestFolder a, b;
  TrainRun whole("mamba2", o, a.path());
  EXPECT_EQ(whole.trainer.run(never), Outcome::kDone);
  int64_t calls = 0, most = 0;
  Outcome outcome = Outcome::kInterrupted;
  std::vector<float> weights;
  for (int part = 0; outcome == Outcome::kInterrupted; ++part) {
    ASSERT_LT(part, 100);
    TrainRun run("mamba2", o, b.path());
    if (part > 0) run.trainer.resume(RunFolder::steps(b.path()).back());
    calls = 0;
    most = part == 1 ? 5 : 23;  // 5: amid the validation after step 6
    outcome = run.trainer.run([&] { return ++calls > most; });
    weights = run.weights();
    if (outcome == Outcome::kDone) {
      EXPECT_EQ(run.trainer.progress().best_loss, whole.trainer.progress().best_loss);
      EXPECT_EQ(run.trainer.progress().best_step, whole.trainer.progress().best_step);
    }
  }
  EXPECT_TRUE(same_bits(weights, whole.weights()));
  const auto file = [](const TestFolder& f, const char* name) {
    return io::read_text(RunFolder::checkpoint(f.path(), 40) / name);
  };
  for (const char* name : {"model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"}) {
    EXPECT_EQ(file(a, name), file(b, name)) << name;
  }
}

// So does one of an adapter, with masks of dropout and initial states; its checkpoints hold no model.
TEST(Trainer, AnInterruptedAdapterGoesOnToTheSameBits) {
  const ModelSpec spec = trained_spec("mamba2");
  LoraSettings settings;
  settings.rank = 4;
  settings.dropout = 0.3;
  settings.targets = {"in_proj", "conv1d", "embeddings"};
  train::TrainModelOptions options;
  options.adapter = train::new_adapter(spec, settings, 1);
  train::add_initial_states(*options.adapter,
                            Model(spec, random_params(spec, 1, DType::kF32, pool()), test::runtime()));
  TrainerOptions o = plan(12, 8, 2);
  o.ema = 0.9;
  const TestFolder a, b;
  TrainRun whole("mamba2", o, a.path(), 1, loader(), options);
  EXPECT_EQ(whole.trainer.run(never), Outcome::kDone);
  EXPECT_LT(whole.heard.steps.back().loss, whole.heard.steps.front().loss);
  {
    TrainRun first("mamba2", o, b.path(), 1, loader(), options);
    int64_t calls = 0;
    EXPECT_EQ(first.trainer.run([&] { return ++calls > 18; }), Outcome::kInterrupted);
  }
  TrainRun rest("mamba2", o, b.path(), 1, loader(), options);
  rest.trainer.resume(RunFolder::steps(b.path()).back());
  EXPECT_EQ(rest.trainer.progress().step, 4);
  EXPECT_EQ(rest.trainer.run(never), Outcome::kDone);
  EXPECT_TRUE(same_bits(rest.weights(), whole.weights()));
  const fs::path x = RunFolder::checkpoint(a.path(), 12), y = RunFolder::checkpoint(b.path(), 12);
  for (const char* name : {"adapter_model.safetensors", "initial_states.safetensors", "ema/adapter_model.safetensors",
                           "ema/initial_states.safetensors", "optimizer.safetensors", "state.json"}) {
    EXPECT_EQ(io::read_text(x / name), io::read_text(y / name)) << name;
  }
  EXPECT_FALSE(fs::exists(x / "model.safetensors"));
}

// Gives weights that are not finite from some sample on.
class Poisoned final : public data::BatchSource {
 public:
  int64_t vocab_size() const override { return loader().vocab_size(); }
  int64_t epoch_samples() const override { return loader().epoch_samples(); }
  uint64_t fingerprint() const override { return 0; }
  data::Batch samples(data::Position first, int64_t n) const override {
    data::Batch b = loader().samples(first, n);
    if (first.index >= 12) b.weights[5] = std::numeric_limits<float>::infinity();
    return b;
  }
};

TEST(Trainer, WhatIsNotFiniteEndsTheRunAndTheStateBeforeItIsSaved) {
  const Poisoned data;
  const TestFolder folder;
  TrainRun run("mamba2", plan(50), folder.path(), 1, data);
  const std::string what = io::message_of(ErrorCode::kFailed, [&] { run.trainer.run(never); });
  EXPECT_THAT(what, HasSubstr("step 4 (samples from 12 of epoch 0 on)"));
  EXPECT_THAT(what, HasSubstr("are not finite, the first on the way back that of lm_head.weight"));
  EXPECT_THAT(what, HasSubstr("step-00000003"));
  const TestFolder healthy;
  TrainRun same("mamba2", plan(50), healthy.path());
  int64_t calls = 0;
  EXPECT_EQ(same.trainer.run([&] { return ++calls > 3; }), Outcome::kInterrupted);
  EXPECT_TRUE(same_bits(run.weights(), same.weights()));
  EXPECT_EQ(RunFolder::steps(folder.path()), std::vector<int64_t>{3});
}

TEST(Trainer, WeightsThatAreNotFiniteAreNamedAndNotSaved) {
  const TestFolder folder;
  TrainRun run("mamba2", plan(50), folder.path());
  for (train::Trained& t : run.model.trained()) {
    if (t.spec.name.ends_with("layers.1.mixer.norm.weight")) t.value.f32()[0] = std::numeric_limits<float>::quiet_NaN();
  }
  const std::string what = io::message_of(ErrorCode::kFailed, [&] { run.trainer.run(never); });
  EXPECT_THAT(what, HasSubstr("backbone.layers.1.mixer.norm.weight itself holds values that are not finite"));
  EXPECT_TRUE(RunFolder::steps(folder.path()).empty());
}

// Never: a checkpoint that is no good in the place of one that was.
TEST(Trainer, AStepThatBreaksTheWeightsIsNotSaved) {
  TrainerOptions o = plan(50);
  o.save_every = o.keep_last = 1;
  const TestFolder folder;
  TrainRun run("mamba2", o, folder.path());
  run.heard.then = [&](const train::StepReport& r) {
    if (r.step == 4) run.model.trained()[2].value.f32()[1] = std::numeric_limits<float>::infinity();
  };
  const std::string what = io::message_of(ErrorCode::kFailed, [&] { run.trainer.run(never); });
  EXPECT_THAT(what, HasSubstr("step 4 left values in " + run.model.trained()[2].spec.name));
  EXPECT_THAT(what, HasSubstr("step-00000003, is untouched"));
  EXPECT_EQ(RunFolder::steps(folder.path()), std::vector<int64_t>{3});
}

TEST(Trainer, AValidationLossThatIsNotFiniteEndsTheRun) {
  TrainerOptions o = plan(50);
  o.valid_every = 3;
  o.valid_samples = 4;
  const TestFolder folder;
  TrainRun late("mamba2", o, folder.path());
  late.heard.then = [&](const train::StepReport& r) {
    for (train::Trained& t : late.model.trained()) {
      if (r.step == 3 && t.spec.name.ends_with("norm_f.weight")) std::fill_n(t.value.f32(), t.value.numel(), 3e38f);
    }
    late.model.changed();
  };
  const std::string what = io::message_of(ErrorCode::kFailed, [&] { late.trainer.run(never); });
  EXPECT_THAT(what, HasSubstr("the validation loss after step 3 is"));
  EXPECT_THAT(what, HasSubstr("the last good state is saved as"));
}

// A full disk under the metrics, say.
TEST(Trainer, AnObserverThatFailsLosesNothing) {
  const TestFolder folder;
  TrainRun run("mamba2", plan(50), folder.path());
  run.heard.then = [](const train::StepReport& r) {
    if (r.step == 5) throw Error(ErrorCode::kFailed, "[metrics] no space");
  };
  const std::string what = io::message_of(ErrorCode::kFailed, [&] { run.trainer.run(never); });
  EXPECT_THAT(what, HasSubstr("[metrics] no space; the last good state is saved as"));
  EXPECT_EQ(RunFolder::steps(folder.path()), std::vector<int64_t>{5});
}

// A student of other weights comes to say what its teacher says, and the report shows both parts of the loss.
TEST(Trainer, AStudentFollowsItsTeacher) {
  const ModelSpec spec = trained_spec("mamba1");
  train::TrainModelOptions o;
  o.distillation = {std::make_shared<const Model>(spec, random_params(spec, 5, DType::kF32, pool()), test::runtime()),
                    0.9f, 2};
  const TestFolder folder, alone_folder;
  TrainRun student("mamba2", plan(150), folder.path(), 1, loader(), o), alone("mamba2", plan(150), alone_folder.path());
  student.trainer.run(never);
  alone.trainer.run(never);
  const auto& steps = student.heard.steps;
  ASSERT_TRUE(steps.front().kl && steps.back().kl);
  EXPECT_LT(*steps.back().kl, 0.3 * *steps.front().kl);
  EXPECT_FALSE(alone.heard.steps.back().kl);
  const auto apart = [&](TrainRun& r) {
    const data::Batch b = held_out().samples({}, 8);
    train::TrainModel m(r.model.spec(), r.model.params(), r.runtime, o);
    m.begin();
    return m.accumulate(b, 1).mean_kl();
  };
  EXPECT_LT(apart(student), 0.5 * apart(alone)) << "learned from the same tokens without a teacher";
}

TEST(Trainer, EndsWhenValidationNoLongerGetsBetter) {
  TrainerOptions o = plan(100);
  o.schedule.peak = o.schedule.final = 0;  // nothing is learned
  o.valid_every = 5;
  o.valid_samples = 4;
  o.keep_best = true;
  o.patience = 3;
  const TestFolder folder;
  TrainRun run("mamba2", o, folder.path());
  EXPECT_EQ(run.trainer.run(never), Outcome::kStopped);
  EXPECT_EQ(run.trainer.progress().step, 20);
  EXPECT_EQ(RunFolder::steps(folder.path()), (std::vector<int64_t>{5, 20}));
}

TEST(Trainer, TheRateFollowsTheScheduleAndReportsAreWhole) {
  const TestFolder folder;
  TrainerOptions o = plan(20);
  o.peak_flops = 1e9;
  TrainRun run("mamba2", o, folder.path());
  run.trainer.run(never);
  ASSERT_EQ(run.heard.steps.size(), 20u);
  for (int64_t i = 0; i < 20; ++i) {
    const train::StepReport& r = run.heard.steps[static_cast<size_t>(i)];
    EXPECT_EQ(r.step, i + 1);
    EXPECT_EQ(r.tokens, (i + 1) * 4 * kLength);
    EXPECT_EQ(r.lr, o.schedule.at(i));
    EXPECT_GT(r.grad_norm, 0);
    const Model model(run.model.spec(), run.model.params(), run.runtime);
    EXPECT_DOUBLE_EQ(r.peak_share, 6.0 * static_cast<double>(model.param_count()) * r.tokens_per_second / 1e9);
  }
}

TEST(Evaluator, OfATaskCountsWhatIsRight) {
  const TestFolder folder;
  TrainRun run("mamba2", plan(1), folder.path());
  const auto task = data::make_task(*data::find_task("parity"), {}, 5);
  const auto e = train::evaluate(run.model, *task, 20, 4, never);
  ASSERT_TRUE(e && e->accuracy);
  EXPECT_NEAR(e->loss, train::evaluate(run.model, *task, 20, 20, never)->loss, 1e-9);
  double loss = run.model.evaluate(task->samples({}, 20)).mean();
  EXPECT_NEAR(e->loss, loss, 1e-6);
  EXPECT_FALSE(train::evaluate(run.model, *task, 20, 4, [] { return true; }));
}

// Trap I6: with the form of A that published Mamba-3 models have, a high rate under WSD stays finite.
TEST(Trainer, TrapI6Mamba3StaysFiniteAtAHighRateUnderWsd) {
  TrainerOptions o = plan(100);
  o.schedule = {LrSchedule::Shape::kWsd, 1.4e-3, 0, 100, 10, 20};
  const TestFolder folder;
  TrainRun run("mamba3_siso", o, folder.path());
  EXPECT_EQ(run.trainer.run(never), Outcome::kDone);
  EXPECT_LT(run.heard.steps.back().loss, run.heard.steps.front().loss);
}

}  // namespace
}  // namespace krait::test
