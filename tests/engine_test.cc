// The engine on whole tiny models: batching, resuming, forks, stops, cancellation, beam search.
#include "krait/infer/engine.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>

#include "krait/core/error.h"
#include "krait/infer/scheduler.h"
#include "tests/tiny_models.h"

namespace krait::test {
namespace {

constexpr int64_t kVocab = 29;

SamplerParams hot(uint64_t seed) {
  SamplerParams p;
  p.temperature = 1.2;
  p.top_k = 20;
  p.min_p = 0.01;
  p.repetition_penalty = 1.1;
  p.seed = seed;
  return p;
}

Request request(std::vector<int32_t> prompt, int64_t n, SamplerParams sampler = {}) {
  Request q;
  q.prompt = std::move(prompt);
  q.max_new_tokens = n;
  q.sampler = std::move(sampler);
  q.keep_state = true;
  return q;
}

template <class F>
ErrorCode code_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode{0};
}

// The definition: one sequence, one token at a time.
std::vector<int32_t> plain_loop(const Model& m, const std::vector<int32_t>& prompt, int64_t n, const SamplerParams& p) {
  StatePool pool(m, 1);
  Sequence s(pool);
  s.rng() = {p.seed, p.stream, 0};
  for (const int32_t id : prompt) s.read({&id, 1});
  const Sampler sampler(p, m.vocab_size());
  std::vector<int32_t> out;
  for (int64_t i = 0; i < n; ++i) {
    const Tensor& row = s.head().last_logits;
    out.push_back(sampler.pick({row.f32(), static_cast<size_t>(row.numel())}, s.head().history, s.rng()));
    s.read({&out.back(), 1});
  }
  return out;
}

class EngineOf : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Model> model_ = tiny_model(GetParam());
};

TEST_P(EngineOf, TrapA5_BatchedEqualsAlone) {
  // 1 to 17 requests of mixed lengths, few slots, small passes: chunks, waiting and strangers all at once.
  std::vector<Request> requests;
  std::vector<Generation> alone;
  for (uint64_t i = 0; i < 17; ++i) {
    const int64_t length = i % 4 == 0 ? 1 : static_cast<int64_t>(1 + i * 5 % 43);
    Request q =
        request(random_ids(length, kVocab, i), static_cast<int64_t>(i * 7 % 19), i % 3 == 0 ? SamplerParams{} : hot(i));
    alone.push_back(Engine(*model_).run(q).generations[0]);
    EXPECT_EQ(alone.back().ids, plain_loop(*model_, q.prompt, q.max_new_tokens, q.sampler));
    requests.push_back(std::move(q));
  }
  for (const size_t batch : {1u, 2u, 5u, 17u}) {
    for (const auto& [slots, tokens] : {std::pair<int64_t, int64_t>{1, 1}, {3, 3}, {4, 11}, {17, 512}}) {
      EngineOptions o;
      o.max_sequences = slots;
      o.max_batch_tokens = tokens;
      Engine engine(*model_, o);
      const auto results =
          engine.run(std::vector<Request>(requests.begin(), requests.begin() + static_cast<int64_t>(batch)));
      for (size_t i = 0; i < batch; ++i) {
        ASSERT_FALSE(results[i].error);
        EXPECT_EQ(results[i].generations[0].ids, alone[i].ids);
        EXPECT_TRUE(*results[i].generations[0].state == *alone[i].state) << "request " << i << " of " << batch;
      }
      EXPECT_EQ(engine.pool().free_slots(), slots);
    }
  }
}

TEST_P(EngineOf, TrapE3_ResumedRunDrawsTheSameTokens) {
  const auto prompt = random_ids(13, kVocab, 1);
  const auto whole = plain_loop(*model_, prompt, 24, hot(3));
  for (const int64_t first : {0, 1, 11, 23}) {
    Engine engine(*model_);
    const Generation a = engine.run(request(prompt, first, hot(3))).generations[0];
    Request go_on = request({}, 24 - first, hot(3));
    go_on.start = a.state;
    const Result b = engine.run(go_on);
    std::vector<int32_t> both = a.ids;
    both.insert(both.end(), b.generations[0].ids.begin(), b.generations[0].ids.end());
    EXPECT_EQ(both, whole) << first;
    EXPECT_EQ(b.prompt_read, 0) << "no token is read twice";
    EXPECT_EQ(b.generations[0].state->position(), 13 + 24);
  }
}

TEST_P(EngineOf, TrapE2_RestoreThenRegenerateWithoutANewToken) {
  Engine engine(*model_);
  const Generation a = engine.run(request(random_ids(9, kVocab, 1), 0, hot(3))).generations[0];
  Request again = request({}, 8, hot(3));
  again.start = a.state;
  const auto ids = engine.run(again).generations[0].ids;
  EXPECT_EQ(engine.run(again).generations[0].ids, ids) << "from the same state the same tokens, however often";
  again.new_rng = true;
  again.sampler.seed = 77;
  EXPECT_NE(engine.run(again).generations[0].ids, ids);
}

TEST_P(EngineOf, TrapE12_ForksEqualSeparateRunsAndReadThePromptOnce) {
  const auto prompt = random_ids(21, kVocab, 1);
  for (const int64_t slots : {1, 3, 64}) {  // fewer slots than forks: they wait
    EngineOptions o;
    o.max_sequences = slots;
    Engine engine(*model_, o);
    Request q = request(prompt, 6, hot(3));
    q.n = 64;
    const Result r = engine.run(q);
    ASSERT_EQ(r.generations.size(), 64u);
    EXPECT_EQ(r.prompt_read, 21);
    for (uint64_t i = 0; i < 64; ++i) {
      SamplerParams own = hot(3);
      own.stream = i;
      EXPECT_EQ(r.generations[i].ids, plain_loop(*model_, prompt, 6, own)) << i;
    }
    EXPECT_EQ(engine.pool().free_slots(), slots);
  }
}

TEST_P(EngineOf, StopIdsEndASequenceUnread) {
  const auto prompt = random_ids(5, kVocab, 1);
  const auto ids = plain_loop(*model_, prompt, 12, hot(4));
  Request q = request(prompt, 12, hot(4));
  q.stop_ids = {ids[7]};
  const auto until = static_cast<size_t>(std::ranges::find(ids, ids[7]) - ids.begin());
  const Generation g = Engine(*model_).run(q).generations[0];
  EXPECT_EQ(g.reason, FinishReason::kStopId);
  EXPECT_EQ(g.stop_id, ids[7]);
  EXPECT_EQ(g.ids, std::vector<int32_t>(ids.begin(), ids.begin() + static_cast<int64_t>(until)));
  EXPECT_EQ(g.state->position(), static_cast<int64_t>(5 + until));
}

TEST_P(EngineOf, CallbackSeesEveryTokenAndStops) {
  const auto prompt = random_ids(5, kVocab, 1);
  Request q = request(prompt, 12, hot(4));
  q.logprobs = 3;
  std::vector<int32_t> seen;
  q.on_token = [&](const GeneratedToken& t) {
    EXPECT_EQ(t.index, static_cast<int64_t>(seen.size()));
    EXPECT_EQ(t.logprobs->chosen.id, t.id);
    EXPECT_EQ(t.logprobs->top.size(), 3u);
    seen.push_back(t.id);
    return seen.size() < 4;
  };
  std::vector<int64_t> progress;
  q.on_prefill = [&](int64_t read, int64_t all) {
    EXPECT_EQ(all, 5);
    progress.push_back(read);
  };
  EngineOptions o;
  o.max_sequences = 1;
  o.max_batch_tokens = 2;
  const Generation g = Engine(*model_, o).run(q).generations[0];
  EXPECT_EQ(g.reason, FinishReason::kCallback);
  EXPECT_EQ(g.ids, seen);
  EXPECT_EQ(g.logprobs.size(), 4u);
  EXPECT_EQ(g.state->position(), 9) << "the token that ended it is part of the state";
  EXPECT_EQ(progress, (std::vector<int64_t>{2, 4, 5}));
}

TEST_P(EngineOf, TrapG1_CancelKeepsStatesAndLeaksNoSlot) {
  const auto prompt = random_ids(30, kVocab, 1);
  const auto want = plain_loop(*model_, prompt, 40, hot(5));
  for (const int ticks : {0, 1, 2, 4, 5, 9, 20}) {
    std::atomic<bool> cancel{false};
    EngineOptions o;
    o.max_sequences = 3;
    o.max_batch_tokens = 10;
    o.cancel = &cancel;
    Engine engine(*model_, o);
    std::vector<int64_t> numbers;
    for (int i = 0; i < 5; ++i) numbers.push_back(engine.submit(request(prompt, 40, hot(5))));
    Request forks = request(prompt, 40, hot(5));
    forks.n = 4;
    numbers.push_back(engine.submit(forks));
    for (int t = 0; t < ticks; ++t) engine.tick();
    cancel = true;
    EXPECT_FALSE(engine.tick());
    EXPECT_EQ(engine.pool().free_slots(), 3) << "after " << ticks << " ticks";
    cancel = false;
    for (const int64_t n : numbers) {
      const auto r = engine.take(n);
      ASSERT_TRUE(r) << "every request has ended";
      for (const Generation& g : r->generations) {
        EXPECT_EQ(g.reason, FinishReason::kCancelled);
        if (!g.state) continue;  // never began
        EXPECT_EQ(g.state->position(), r->prompt_read + static_cast<int64_t>(g.ids.size()));
        Request rest =
            request({prompt.begin() + r->prompt_read, prompt.end()}, 40 - static_cast<int64_t>(g.ids.size()), hot(5));
        rest.start = g.state;
        if (g.state->head.rng.stream != 0) continue;
        std::vector<int32_t> all = g.ids;
        const auto tail = engine.run(rest).generations[0].ids;
        all.insert(all.end(), tail.begin(), tail.end());
        EXPECT_EQ(all, want) << "goes on as if nothing had happened; after " << ticks << " ticks";
      }
    }
  }
}

TEST_P(EngineOf, TrapG8_OneFailureLeavesOthersAlone) {
  EngineOptions o;
  o.max_sequences = 2;
  Engine engine(*model_, o);
  const auto prompt = random_ids(4, kVocab, 1);
  Request bad = request(prompt, 5);
  bad.on_token = [](const GeneratedToken&) -> bool { throw Error(ErrorCode::kFailed, "broken pipe"); };
  Request wrong = request({1, 2, 29}, 5);
  const auto results = engine.run({bad, request(prompt, 5), wrong, request(prompt, 5)});
  EXPECT_TRUE(results[0].error);
  EXPECT_TRUE(results[2].error);
  EXPECT_EQ(results[1].generations[0].ids, plain_loop(*model_, prompt, 5, {}));
  EXPECT_EQ(results[3].generations[0].ids, results[1].generations[0].ids);
  EXPECT_EQ(engine.pool().free_slots(), 2);
  EXPECT_THROW(engine.run(bad), Error);
  EXPECT_EQ(engine.run(request(prompt, 5)).generations[0].ids, results[1].generations[0].ids);
}

TEST_P(EngineOf, RequestsThatMakeNoSenseAreErrors) {
  Engine engine(*model_);
  const auto prompt = random_ids(4, kVocab, 1);
  const auto code = [&](const std::function<void(Request&)>& change) {
    Request q = request(prompt, 3);
    change(q);
    return code_of([&] { engine.submit(q); });
  };
  EXPECT_EQ(code([](Request& q) { q.prompt.clear(); }), ErrorCode::kUsage);
  EXPECT_EQ(code([](Request& q) { q.prompt[1] = -1; }), ErrorCode::kBadData);
  EXPECT_EQ(code([](Request& q) { q.prompt[1] = 29; }), ErrorCode::kBadData);
  EXPECT_EQ(code([](Request& q) { q.max_new_tokens = -1; }), ErrorCode::kUsage);
  EXPECT_EQ(code([](Request& q) { q.n = 0; }), ErrorCode::kUsage);
  EXPECT_EQ(code([](Request& q) { q.n = 2; }), ErrorCode::kUsage) << "greedy copies are all equal";
  EXPECT_EQ(code([](Request& q) { q.n = 2, q.sampler.temperature = 1, q.max_new_tokens = 0; }), ErrorCode::kUsage);
  EXPECT_EQ(code([](Request& q) { q.stop_ids = {29}; }), ErrorCode::kUsage);
  EXPECT_EQ(code([](Request& q) { q.logprobs = 30; }), ErrorCode::kUsage);
  EXPECT_EQ(code([](Request& q) { q.sampler.top_p = 0.5; }), ErrorCode::kUsage);
  const auto other = tiny_model(GetParam(), DType::kBF16);
  const auto foreign = Engine(*other).run(request(prompt, 1)).generations[0].state;
  EXPECT_EQ(code([&](Request& q) { q.start = foreign; }), ErrorCode::kBadData);
  for (const auto& [slots, tokens, vocab] : {std::tuple{0, 9, 0}, {4, 3, 0}, {1, 1, 30}, {1, 1, -1}}) {
    EngineOptions o{slots, tokens, vocab, nullptr};
    EXPECT_EQ(code_of([&] { Engine(*model_, o); }), ErrorCode::kUsage);
  }
}

TEST_P(EngineOf, LimitedVocabularyIsHonoured) {
  EngineOptions o;
  o.vocab = 7;
  SamplerParams wild;
  wild.temperature = 50;
  const Generation g = Engine(*model_, o).run(request(random_ids(4, kVocab, 1), 200, wild)).generations[0];
  EXPECT_EQ(g.ids.size(), 200u);
  for (const int32_t id : g.ids) EXPECT_LT(id, 7);
}

// Every continuation of `length` tokens below `vocab` with its score, best first.
std::vector<std::pair<double, std::vector<int32_t>>> all_continuations(const Model& m,
                                                                       const std::vector<int32_t>& prompt,
                                                                       int64_t length, int32_t vocab, int32_t stop,
                                                                       double penalty) {
  std::vector<std::pair<double, std::vector<int32_t>>> out;
  StatePool pool(m, length + 1);
  const std::function<void(Sequence&, std::vector<int32_t>, double)> go = [&](Sequence& s, std::vector<int32_t> ids,
                                                                              double sum) {
    const std::span<const float> row(s.head().last_logits.f32(), static_cast<size_t>(vocab));
    const auto n = static_cast<int64_t>(ids.size()) + 1;
    for (int32_t id = 0; id < vocab; ++id) {
      const double total = sum + logprobs(row, id, 0).chosen.logprob;
      auto longer = ids;
      longer.push_back(id);
      if (id == stop || n == length) {
        out.emplace_back(total / std::pow(static_cast<double>(n), penalty), longer);
        continue;
      }
      Sequence child = s.fork();
      child.read({&id, 1});
      go(child, longer, total);
    }
  };
  Sequence s(pool);
  s.read(prompt);
  go(s, {}, 0);
  std::ranges::sort(out, [](const auto& a, const auto& b) { return a.first > b.first; });
  return out;
}

TEST_P(EngineOf, TrapE12_WideBeamEqualsBruteForce) {
  const auto prompt = random_ids(6, kVocab, 2);
  for (const double penalty : {0.0, 1.0, 2.0, -1.0}) {
    const auto want = all_continuations(*model_, prompt, 4, 5, 3, penalty);
    BeamRequest q;
    q.prompt = prompt;
    q.max_new_tokens = 4;
    q.beams = 400;  // more than there are: nothing is pruned
    q.n_best = 20;
    q.length_penalty = penalty;
    q.stop_ids = {3};
    q.keep_state = true;
    const auto got = beam_search(*model_, q, 5);
    ASSERT_EQ(got.size(), 20u);
    for (size_t i = 0; i < got.size(); ++i) {
      auto ids = got[i].ids;
      if (got[i].stop_id) ids.push_back(*got[i].stop_id);
      EXPECT_EQ(ids, want[i].second) << i << ", penalty " << penalty;
      EXPECT_NEAR(got[i].score, want[i].first, 1e-9);
      StatePool pool(*model_, 1);
      Sequence s(pool);
      s.read(prompt);
      s.read(got[i].ids);
      EXPECT_TRUE(*got[i].state == s.state());
    }
  }
}

TEST_P(EngineOf, TrapE12_NarrowBeamFollowsTheDefinition) {
  // Beams by re-reading every hypothesis from the start: no state is ever moved.
  const auto prompt = random_ids(6, kVocab, 2);
  struct Plain {
    std::vector<int32_t> ids;
    double sum;
  };
  std::vector<Plain> beams = {{{}, 0}};
  for (int length = 0; length < 8; ++length) {
    std::vector<Plain> next;
    for (const Plain& b : beams) {
      StatePool pool(*model_, 1);
      Sequence s(pool);
      s.read(prompt);
      s.read(b.ids);
      for (int32_t id = 0; id < kVocab; ++id) {
        next.push_back({b.ids, b.sum + logprobs({s.head().last_logits.f32(), kVocab}, id, 0).chosen.logprob});
        next.back().ids.push_back(id);
      }
    }
    std::ranges::stable_sort(next, [](const Plain& a, const Plain& b) { return a.sum > b.sum; });
    next.resize(3);
    beams = next;
  }
  BeamRequest q;
  q.prompt = prompt;
  q.max_new_tokens = 8;
  q.beams = q.n_best = 3;
  const auto got = beam_search(*model_, q);
  ASSERT_EQ(got.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(got[i].ids, beams[i].ids);
  q.beams = q.n_best = 1;
  EXPECT_EQ(beam_search(*model_, q)[0].ids, plain_loop(*model_, prompt, 8, {})) << "one beam is greedy decoding";
}

TEST_P(EngineOf, BeamEarlyStopAndErrors) {
  BeamRequest q;
  q.prompt = random_ids(6, kVocab, 2);
  q.max_new_tokens = 12;
  q.beams = 3;
  for (int32_t id = 0; id < 12; ++id) q.stop_ids.push_back(id);
  const auto full = beam_search(*model_, q);
  q.early_stop = true;
  const auto early = beam_search(*model_, q);
  ASSERT_EQ(early.size(), 1u);
  EXPECT_GE(full[0].score, early[0].score) << "going on can only find better ones";
  const auto code = [&](const std::function<void(BeamRequest&)>& change) {
    BeamRequest r = q;
    change(r);
    return code_of([&] { beam_search(*model_, r); });
  };
  EXPECT_EQ(code([](BeamRequest& r) { r.beams = 0; }), ErrorCode::kUsage);
  EXPECT_EQ(code([](BeamRequest& r) { r.n_best = 4; }), ErrorCode::kUsage);
  EXPECT_EQ(code([](BeamRequest& r) { r.max_new_tokens = 0; }), ErrorCode::kUsage);
  EXPECT_EQ(code([](BeamRequest& r) { r.stop_ids.clear(); }), ErrorCode::kUsage) << "early stop cannot apply";
  EXPECT_EQ(code([](BeamRequest& r) { r.prompt.clear(); }), ErrorCode::kUsage);
  EXPECT_EQ(code([](BeamRequest& r) { r.prompt[0] = 99; }), ErrorCode::kBadData);
  const std::atomic<bool> cancel{true};
  EXPECT_TRUE(beam_search(*model_, q, 0, &cancel).empty());
}

INSTANTIATE_TEST_SUITE_P(Tiny, EngineOf, testing::ValuesIn(tiny_names()), [](const auto& i) { return i.param; });

TEST_P(EngineOf, TrapA5_MarksAndBudgetsChangeNoBit) {
  const auto prompt = random_ids(61, kVocab, 1);
  const Generation alone = Engine(*model_).run(request(prompt, 9, hot(3))).generations[0];
  const Request stranger = request(random_ids(5, kVocab, 2), 40, hot(8));
  for (const int64_t budget : {0, 1, 3, 1000}) {
    Engine engine(*model_, {.max_sequences = 2, .max_batch_tokens = 16});
    std::map<int64_t, std::shared_ptr<const State>> marked;
    Request q = request(prompt, 9, hot(3));
    q.marks = {1, 2, 17, 60, 61};
    q.on_mark = [&](std::shared_ptr<const State> s) { marked[s->position()] = std::move(s); };
    engine.submit(stranger);
    while (engine.load().writing == 0) engine.tick();
    const int64_t r = engine.submit(q);
    while (engine.tick(budget)) {
      const PassTokens& pass = engine.last_pass();
      if (pass.generated > 0) {
        EXPECT_LE(pass.prompt, budget);
      }
      EXPECT_LE(pass.prompt + pass.generated, 16);
    }
    const Result result = *engine.take(r);
    EXPECT_EQ(result.generations[0].ids, alone.ids) << budget;
    EXPECT_TRUE(*result.generations[0].state == *alone.state) << budget;
    ASSERT_EQ(marked.size(), 5u);
    for (const auto& [position, state] : marked) {
      Request rest = request({prompt.begin() + position, prompt.end()}, 9, hot(3));
      rest.start = state;
      EXPECT_EQ(Engine(*model_).run(rest).generations[0].ids, alone.ids) << position;
    }
  }
}

TEST_P(EngineOf, TrapG1_CancellingOneFreesItsSlotsAndNobodyElseNotices) {
  const Generation alone = Engine(*model_).run(request(random_ids(30, kVocab, 1), 20, hot(3))).generations[0];
  Engine engine(*model_, {.max_sequences = 3, .max_batch_tokens = 8});
  const int64_t kept = engine.submit(request(random_ids(30, kVocab, 1), 20, hot(3)));
  Request forks = request(random_ids(4, kVocab, 2), 1000, hot(4));
  forks.n = 5;  // two of them run, three wait
  const int64_t writes = engine.submit(forks);
  while (engine.load().writing < 2) engine.tick();
  EXPECT_EQ(engine.load().waiting, 3);
  engine.cancel(writes);
  EXPECT_FALSE(engine.take(writes)) << "at the next tick, not before";
  const int64_t reads = engine.submit(request(random_ids(100, kVocab, 3), 5, hot(5)));
  const int64_t waits = engine.submit(request(random_ids(9, kVocab, 4), 5, hot(6)));
  const int64_t more = engine.submit(request(random_ids(9, kVocab, 4), 5, hot(6)));
  engine.tick();
  const Result written = *engine.take(writes);
  ASSERT_EQ(written.generations.size(), 5u);
  for (const Generation& g : written.generations) EXPECT_EQ(g.reason, FinishReason::kCancelled);
  EXPECT_EQ(engine.load().waiting, 1) << "the slots went to the next ones in the same tick";
  engine.cancel(reads);
  engine.cancel(more);
  engine.tick();
  const Result read = *engine.take(reads);
  ASSERT_EQ(read.generations.size(), 1u);
  ASSERT_TRUE(read.generations[0].state) << "what was read of the prompt is not lost";
  EXPECT_EQ(read.generations[0].state->position(), read.prompt_read);
  EXPECT_LT(read.prompt_read, 100);
  EXPECT_EQ(engine.take(more)->generations[0].reason, FinishReason::kCancelled);
  while (engine.tick()) {
  }
  EXPECT_EQ(engine.take(kept)->generations[0].ids, alone.ids);
  EXPECT_EQ(engine.take(waits)->generations[0].ids.size(), 5u);
  EXPECT_EQ(engine.pool().free_slots(), 3);
  EXPECT_EQ(code_of([&] { engine.cancel(waits); }), ErrorCode::kUsage) << "it was taken";
}

TEST_P(EngineOf, ATokenLeftUnreadIsNotInTheState) {
  const auto prompt = random_ids(5, kVocab, 1);
  Request q = request(prompt, 12, hot(4));
  q.leave_last_unread = true;
  q.on_token = [](const GeneratedToken& t) { return t.index < 3; };
  const Generation g = Engine(*model_).run(q).generations[0];
  EXPECT_EQ(g.ids.size(), 4u);
  EXPECT_EQ(g.state->position(), 5 + 3);
}

TEST(Schedule, WritersFirstThenPrompts) {
  const auto plan = [](std::vector<int64_t> tokens, int64_t budget, int64_t prompts = kAnyTokens) {
    std::vector<Unread> unread;
    for (const int64_t n : tokens) unread.push_back({n, n == 1});
    return schedule(unread, budget, prompts);
  };
  EXPECT_THAT(plan({1, 100, 1, 50, 0}, 80), testing::ElementsAre(1, 39, 1, 39, 0)) << "half for the oldest prompt";
  EXPECT_THAT(plan({100, 1, 50}, 200), testing::ElementsAre(100, 1, 50));
  EXPECT_THAT(plan({1000, 90, 20}, 100), testing::ElementsAre(50, 30, 20)) << "the shortest of the others first";
  EXPECT_THAT(plan({1000, 10}, 100), testing::ElementsAre(90, 10)) << "what others do not need is the oldest's";
  EXPECT_THAT(plan({7, 1, 1}, 3), testing::ElementsAre(1, 1, 1)) << "a prompt always gets on";
  EXPECT_THAT(plan({7, 1, 1}, 9, 0), testing::ElementsAre(0, 1, 1)) << "unless it is told not to";
  EXPECT_THAT(plan({7, 5}, 9, 0), testing::ElementsAre(1, 0)) << "but something is read";
  EXPECT_THAT(plan({1, 7, 5}, 9, 4), testing::ElementsAre(1, 2, 2));
  EXPECT_THAT(plan({0, 0}, 8), testing::ElementsAre(0, 0));
}

}  // namespace
}  // namespace krait::test
