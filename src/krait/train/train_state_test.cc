#include "krait/train/train_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "krait/models/load.h"
#include "krait/models/test_specs.h"

namespace krait::train {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// A model, an optimizer and averages, filled with numbers of a seed.
struct RunState {
  explicit RunState(uint64_t seed)
      : model(spec, test::tiny_params(spec, DType::kF32, seed), {}, {}),
        optimizer(make_optimizer({}, model.trained())) {
    for (size_t i = 0; i < model.trained().size(); ++i) {
      ema.push_back(model.trained()[i].value.clone());
      for (const std::string& name : optimizer->state_names()) {
        Tensor& t = optimizer->state(name, i);
        for (int64_t e = 0; e < t.numel(); ++e)
          t.f32()[e] = static_cast<float>(seed) + 0.1f * static_cast<float>(e % 7);
      }
      ema.back().f32()[0] += 1;
    }
  }
  TrainState state() { return {model, *optimizer, ema, progress}; }
  std::vector<Tensor> all() {
    std::vector<Tensor> r = ema;
    for (size_t i = 0; i < model.trained().size(); ++i) {
      r.push_back(model.trained()[i].value);
      for (const std::string& name : optimizer->state_names()) r.push_back(optimizer->state(name, i));
    }
    return r;
  }

  static ModelSpec tiny_spec() {
    ModelSpec s = test::tiny_mamba2();
    s.vocab_size = s.padded_vocab_size;  // the transformers form knows no padding
    return s;
  }
  ModelSpec spec = tiny_spec();
  TrainModel model;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<Tensor> ema;
  Progress progress;
};

bool same(RunState& a, RunState& b) {
  const auto x = a.all(), y = b.all();
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::memcmp(x[i].bytes(), y[i].bytes(), static_cast<size_t>(x[i].nbytes())) != 0) return false;
  }
  return x.size() == y.size();
}

TEST(TrainState, ComesBackToTheBit) {
  const io::TestFolder folder;
  RunState run(1), other(2);
  run.progress = {12, 3456, {2, 5}, 10, 1.0 / 3, 8, 2};
  RunFolder runs(folder / "run", {{"train.seed", "1"}}, {{"tokenizer.json", "{}"}});
  const fs::path saved = runs.save(run.state());
  EXPECT_EQ(saved.filename(), "step-00000012");
  EXPECT_EQ(io::read_text(saved / "tokenizer.json"), "{}");
  EXPECT_FALSE(same(run, other));
  runs.load(12, other.state());
  EXPECT_TRUE(same(run, other));
  EXPECT_EQ(other.progress.step, 12);
  EXPECT_EQ(other.progress.tokens, 3456);
  EXPECT_EQ(other.progress.position, (data::Position{2, 5}));
  EXPECT_EQ(other.progress.validated, 10);
  EXPECT_EQ(other.progress.best_loss, 1.0 / 3);
  EXPECT_EQ(other.progress.best_step, 8);
  EXPECT_EQ(other.progress.since_best, 2);
}

TEST(TrainState, ACheckpointIsAModel) {
  const io::TestFolder folder;
  RunState run(1);
  RunFolder runs(folder / "run", {}, {});
  const fs::path saved = runs.save(run.state());
  for (const char* file : {"", "ema.safetensors"}) {
    const auto c = io::Checkpoint::open(*file == '\0' ? saved : saved / file);
    const ModelSpec spec = find_family(*c).parse(*c);
    test::expect_same_spec(spec, run.spec);
    const ParamStore params = load_params(*c, find_family(*c), spec);
    const Tensor wanted = *file == '\0' ? run.model.trained()[0].value : run.ema[0];
    EXPECT_EQ(params.get(run.model.trained()[0].spec.name).value.f32()[0], wanted.f32()[0]);
  }
}

TEST(TrainState, AnotherRunIsRefusedWithEveryDifference) {
  const io::TestFolder folder;
  RunState run(1);
  run.progress.step = 1;
  {
    RunFolder runs(folder / "run", {{"train.seed", "1"}, {"train.batch", "8"}, {"train.ema", "0"}}, {});
    runs.save(run.state());
  }
  const RunFolder runs(folder / "run", {{"train.seed", "2"}, {"train.batch", "8"}, {"data.length", "9"}}, {});
  const std::string what = io::bad_data([&] { runs.load(1, run.state()); });
  EXPECT_THAT(what, HasSubstr("train.seed: 2 now, 1 in the checkpoint"));
  EXPECT_THAT(what, HasSubstr("data.length: 9 now, nothing in the checkpoint"));
  EXPECT_THAT(what, HasSubstr("train.ema: nothing now, 0 in the checkpoint"));
  EXPECT_THAT(what, Not(HasSubstr("train.batch")));
}

TEST(TrainState, KeepsTheLastAndTheBest) {
  const io::TestFolder folder;
  RunState run(1);
  RunFolder runs(folder / "run", {}, {});
  for (run.progress.step = 1; run.progress.step <= 6; ++run.progress.step) runs.save(run.state());
  runs.remove_old(2, 3);
  EXPECT_THAT(RunFolder::steps(folder / "run"), ElementsAre(3, 5, 6));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder / "run"), {}), 3);
}

TEST(TrainState, WhatAKilledProcessLeftIsNoCheckpointAndGoes) {
  const io::TestFolder folder;
  folder.write("run/.step-00000007.partial/model.safetensors", "half");
  folder.write("run/.step-00000003.removed/state.json", "{}");
  folder.write("run/step-x/state.json", "{}");
  EXPECT_THAT(RunFolder::steps(folder / "run"), ElementsAre());
  const RunFolder runs(folder / "run", {}, {});
  EXPECT_FALSE(fs::exists(folder / "run" / ".step-00000007.partial"));
  EXPECT_FALSE(fs::exists(folder / "run" / ".step-00000003.removed"));
}

TEST(TrainState, WhatIsNoWholeCheckpointIsNamedAtOnce) {
  const io::TestFolder folder;
  folder.write("run/step-00000009/model.safetensors", "no state beside it");
  EXPECT_THAT(io::message_of(ErrorCode::kFailed, [&] { const RunFolder runs(folder / "run", {}, {}); }),
              HasSubstr("step-00000009 is no whole checkpoint"));
}

TEST(TrainState, ADamagedCheckpointNamesTheOneBeforeIt) {
  const io::TestFolder folder;
  RunState run(1);
  RunFolder runs(folder / "run", {}, {});
  for (run.progress.step = 1; run.progress.step <= 2; ++run.progress.step) runs.save(run.state());
  const fs::path last = folder / "run" / "step-00000002";
  const std::string state = io::read_text(last / "state.json");
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = state;
    changed.replace(changed.find(from), from.size(), to);
    io::write_file(last / "state.json", changed);
    return io::bad_data([&] { runs.load(2, run.state()); });
  };
  for (const std::string& what :
       {with("\"step\": 2", "\"step\": 1"), with("\"sample\": 0", "\"sample\": -5"), with("\"tokens\"", "\"t\"")}) {
    EXPECT_THAT(what, HasSubstr((last / "state.json").string()));
    EXPECT_THAT(what, HasSubstr("an earlier checkpoint, " + (folder / "run" / "step-00000001").string()));
  }
  io::write_file(last / "state.json", state);
  fs::resize_file(last / "optimizer.safetensors", 100);
  EXPECT_THAT(io::bad_data([&] { runs.load(2, run.state()); }), HasSubstr("an earlier checkpoint, "));
  runs.load(1, run.state());
  EXPECT_EQ(run.progress.step, 1);
}

TEST(TrainState, OneProcessAtATime) {
  const io::TestFolder folder;
  const RunFolder first(folder / "run", {}, {});
  EXPECT_THAT(io::message_of(ErrorCode::kFailed, [&] { const RunFolder second(folder / "run", {}, {}); }),
              HasSubstr("another process is training in"));
}

TEST(TrainState, DamagedCheckpointsAreRefused) {
  const io::TestFolder folder;
  RunState run(1);
  RunFolder runs(folder / "run", {}, {});
  const fs::path saved = runs.save(run.state());
  fs::resize_file(saved / "optimizer.safetensors", fs::file_size(saved / "optimizer.safetensors") / 2);
  EXPECT_THAT(io::bad_data([&] { runs.load(0, run.state()); }), HasSubstr("optimizer.safetensors"));
  std::ofstream(saved / "state.json") << "{\"format\": 2}";
  EXPECT_THAT(io::bad_data([&] { runs.load(0, run.state()); }), HasSubstr("is of format 2"));
}

}  // namespace
}  // namespace krait::train
