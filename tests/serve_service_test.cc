// The service on whole tiny models: what a request is answered depends on nothing but itself; who gets a slot, and
// when.
#include <gmock/gmock.h>

#include <thread>

#include "krait/core/rng.h"
#include "tests/serve_tools.h"

namespace krait::serve::test {
namespace {

using text::Message;

void expect_answer(const Model& model, const Recorder& heard, const std::vector<int32_t>& ids, const GenerateRequest& r,
                   const std::string& what = "") {
  ASSERT_EQ(heard.status(), 200) << what << (heard.error ? heard.error->what() : "");
  EXPECT_EQ(heard.ended, 1);
  EXPECT_EQ(heard.out_of_order, 0);
  ASSERT_EQ(std::ssize(heard.answer->choices), r.n);
  for (int64_t i = 0; i < r.n; ++i) {
    const Expected want = expected(model, ids, r, i);
    const ChoiceEnd& got = heard.answer->choices[static_cast<size_t>(i)];
    EXPECT_EQ(got.ids, want.ids) << what << ", choice " << i;
    EXPECT_EQ(got.text, want.text) << what;
    EXPECT_EQ(got.finish_reason, want.finish_reason) << what;
    EXPECT_EQ(heard.text_of(i), want.text) << what << ": the pieces make up the text";
  }
}

std::vector<int32_t> ids_of(const GenerateRequest& r) {
  if (r.input.ids) return *r.input.ids;
  if (r.input.text) return tiny_tokenizer().encode(*r.input.text);
  return chat_ids(r.input.messages);
}

std::string random_text(Rng& rng, int64_t n) {
  std::string s;
  for (int64_t i = 0; i < n; ++i) s += static_cast<char>('a' + rng.below(8));
  return s;
}

std::vector<GenerateRequest> mixed_requests(int count) {
  Rng rng(7);
  std::vector<GenerateRequest> all;
  for (int i = 0; i < count; ++i) {
    const auto seed = static_cast<uint64_t>(i);
    const std::string text = "abab cd" + random_text(rng, static_cast<int64_t>(rng.below(i % 5 == 0 ? 90 : 9)));
    GenerateRequest r = i % 3 == 0   ? text_request(text, i % 11, seed)
                        : i % 3 == 1 ? ids_request(tiny_tokenizer().encode(text), 5 + i % 7, seed)
                                     : chat_request({{"system", "ab"}, {"user", text}}, 9, seed);
    if (i % 4 == 1 && r.max_tokens > 0) r.n = 3;

    if (i % 5 == 2) r.stops = {"a", "cdf"};
    if (i % 6 == 0 && r.n == 1) r.sampler = {};
    all.push_back(std::move(r));
  }
  return all;
}

class ServiceOf : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Model> model_ = tiny_model(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Tiny, ServiceOf, testing::ValuesIn(krait::test::tiny_names()),
                         [](const auto& model) { return model.param; });

TEST_P(ServiceOf, TrapA5_AnAnswerDependsOnNothingButItsRequest) {
  const auto requests = mixed_requests(40);
  for (const int64_t slots : {1, 5, 64}) {
    Server server(*model_, {.max_running = slots, .prefill_tokens = 16, .checkpoint_every = 8});
    for (const char* round : {"at first", "behind cached states", "while others are cancelled"}) {
      std::vector<std::shared_ptr<Recorder>> heard;
      std::vector<int64_t> strangers;
      for (const GenerateRequest& r : requests) {
        heard.push_back(server.submit(r));
        if (*round == 'w') server.submit(text_request("abab cdfe", 50, 99), &strangers.emplace_back());
      }
      for (const int64_t t : strangers) {
        server.service.step();
        server.service.cancel(t);
      }
      server.run_dry();
      for (size_t i = 0; i < requests.size(); ++i) {
        expect_answer(*model_, *heard[i], ids_of(requests[i]), requests[i],
                      "request " + std::to_string(i) + " " + round + ", slots " + std::to_string(slots));
      }
      EXPECT_EQ(server.service.stats().free_slots, slots);
      EXPECT_THAT(server.faults, testing::IsEmpty());
    }
  }
}

TEST_P(ServiceOf, TrapE1_AConversationEqualsOneLongPromptAndReadsOnlyWhatIsNew) {
  Server server(*model_, {.max_running = 2});
  std::vector<int32_t> history;
  for (uint64_t turn = 0; turn < 6; ++turn) {
    GenerateRequest r = text_request("ab" + std::string(turn, 'c'), 7, turn);
    r.thread.conversation = "talk";
    const auto heard = server.ask(r);
    const auto prompt = tiny_tokenizer().encode(*r.input.text, {.add_special = turn == 0});
    history.insert(history.end(), prompt.begin(), prompt.end());
    expect_answer(*model_, *heard, history, r, "turn " + std::to_string(turn));
    EXPECT_EQ(heard->answer->conversation, "talk");
    EXPECT_EQ(heard->usage->prompt_tokens, std::ssize(history));
    EXPECT_EQ(heard->usage->prompt_tokens - heard->usage->cached_tokens, std::ssize(prompt)) << "turn " << turn;
    const auto& ids = heard->answer->choices[0].ids;
    history.insert(history.end(), ids.begin(), ids.end());
    EXPECT_EQ(server.conversations.get("", "talk").ids(), history);
  }
}

TEST_P(ServiceOf, TrapE4_ChatHistoriesReadOnlyWhatIsNew) {
  Server server(*model_, {.max_running = 2});
  std::vector<Message> talk = {{"system", "ab ab"}};
  std::vector<int32_t> before;  // as the next turn will have it
  for (uint64_t turn = 0; turn < 10; ++turn) {
    talk.push_back({"user", "fe " + std::string(turn, 'd')});
    const GenerateRequest r = chat_request(talk, 12, turn);
    const auto heard = server.ask(r);
    const auto ids = chat_ids(talk);
    expect_answer(*model_, *heard, ids, r, "turn " + std::to_string(turn));
    EXPECT_EQ(heard->usage->cached_tokens, std::ssize(before)) << "turn " << turn;
    ASSERT_TRUE(std::equal(before.begin(), before.end(), ids.begin()));
    before = ids_with_answer(tiny_tokenizer(), tiny_chat(), talk, heard->answer->choices[0].text);
    talk.push_back({"assistant", heard->answer->choices[0].text});
  }
  talk.resize(7);  // three turns; the fourth is written anew
  talk.push_back({"user", "something else"});
  const auto heard = server.ask(chat_request(talk, 5));
  expect_answer(*model_, *heard, chat_ids(talk), chat_request(talk, 5));
  const auto common = ids_with_answer(tiny_tokenizer(), tiny_chat(), {talk.begin(), talk.begin() + 6}, talk[6].content);
  EXPECT_GE(heard->usage->cached_tokens, std::ssize(common)) << "from the edited turn on, not from the beginning";
}

TEST_P(ServiceOf, AnUrgentTurnWaitsForTheReadingOfItsHistory) {
  Server server(*model_, {.max_running = 1, .prefill_tokens = 4});
  std::vector<Message> talk = {{"user", "ab"}};
  for (uint64_t turn = 0; turn < 12; ++turn) {
    const GenerateRequest r = chat_request(talk, 15, 100 + turn);
    const auto heard = server.submit(r);
    while (!heard->has_ended()) server.service.step();  // and no further
    expect_answer(*model_, *heard, chat_ids(talk), r);
    if (turn > 0) {
      EXPECT_LE(heard->usage->prompt_tokens - heard->usage->cached_tokens, 5) << "turn " << turn;
    }
    talk.push_back({"assistant", heard->answer->choices[0].text});
    talk.push_back({"user", "cd"});
  }
}

TEST_P(ServiceOf, StopStringsAreNoPartOfAConversation) {
  Server server(*model_);
  std::vector<int32_t> history;
  int stopped = 0;
  for (uint64_t turn = 0; turn < 40; ++turn) {
    GenerateRequest r = text_request("ab", 30, turn);
    r.thread.conversation = "talk";
    r.stops = turn % 2 == 0 ? std::vector<std::string>{"a", "\n"} : std::vector<std::string>{"df", "cd", "e", "g"};
    const auto heard = server.ask(r);
    const auto prompt = tiny_tokenizer().encode(*r.input.text, {.add_special = turn == 0});
    history.insert(history.end(), prompt.begin(), prompt.end());
    expect_answer(*model_, *heard, history, r, "turn " + std::to_string(turn));
    EXPECT_EQ(heard->usage->prompt_tokens - heard->usage->cached_tokens, std::ssize(prompt)) << "turn " << turn;
    stopped += heard->answer->choices[0].stop_string ? 1 : 0;
    const auto& ids = heard->answer->choices[0].ids;
    history.insert(history.end(), ids.begin(), ids.end());
    EXPECT_EQ(server.conversations.get("", "talk").ids(), history);
  }
  EXPECT_GT(stopped, 20);
}

TEST_P(ServiceOf, TrapE5_SharedPrefixesOfAnyLength) {
  for (const int64_t shared : {50, 500, 1500}) {
    Server server(*model_);
    const auto prefix = krait::test::random_ids(shared, 29, 1);
    for (uint64_t i = 0; i < 5; ++i) {
      auto ids = prefix;
      const auto tail = krait::test::random_ids(i % 2 == 0 ? 10 : 400, 29, 10 + i);
      ids.insert(ids.end(), tail.begin(), tail.end());
      const GenerateRequest r = ids_request(ids, 3, i);
      const auto heard = server.ask(r);
      expect_answer(*model_, *heard, ids, r);
      if (i >= 2) {
        EXPECT_GE(static_cast<double>(heard->usage->cached_tokens), 0.95 * static_cast<double>(shared));
      }
    }
  }
}

TEST_P(ServiceOf, TheStateBehindAnyTurn) {
  Server server(*model_);
  std::vector<std::vector<int32_t>> histories;
  for (uint64_t turn = 0; turn < 4; ++turn) {
    GenerateRequest r = text_request("abcd", 5, turn);
    r.thread.conversation = "talk";
    server.ask(r);
    histories.push_back(server.conversations.get("", "talk").ids());
  }
  server.cache.erase_tenant("");  // they are computed again
  for (size_t turns = 1; turns <= 4; ++turns) {
    const auto state = server.service.state("", "talk", turns);
    Request q;
    q.prompt = histories[turns - 1];
    q.keep_state = true;
    const auto want = Engine(*model_).run(q).generations[0].state;
    EXPECT_EQ(state->position(), want->position());
    EXPECT_TRUE(diff(*state, *want).equal()) << turns;
  }
}

class ServiceTest : public testing::Test {
 protected:
  std::unique_ptr<Model> model_ = tiny_model("mamba2");
};

TEST_F(ServiceTest, OneThreadOneTurnAtATime) {
  Server server(*model_);
  GenerateRequest r = text_request("ab", 20);
  r.thread.conversation = "talk";
  const auto first = server.submit(r), second = server.submit(r);
  server.run_dry();
  EXPECT_EQ(first->status(), 200);
  EXPECT_EQ(second->status(), 409);
  EXPECT_EQ(second->error->code(), "conversation_busy");
  EXPECT_EQ(server.conversations.get("", "talk").turns.size(), 1u);
  GenerateRequest other = r;
  other.tenant = "somebody";
  other.thread.previous_response = first->answer->conversation;
  other.thread.conversation.reset();
  EXPECT_EQ(server.ask(other)->status(), 404);
  other.thread = r.thread;
  const auto begun = server.ask(other);
  expect_answer(*model_, *begun, tiny_tokenizer().encode("ab"), r,
                "another's conversation of that name is another one");
}

TEST_F(ServiceTest, ResponsesGoOnAndFork) {
  Server server(*model_);
  const auto ask = [&](const std::string& id, const std::string& text, const std::string& previous) {
    GenerateRequest r = text_request(text, 6, 3);
    r.id = id;
    if (previous.empty()) r.thread.keep = true;
    if (!previous.empty()) r.thread.previous_response = previous;
    return server.ask(r);
  };
  const auto a = ask("resp-a", "ab", ""), b = ask("resp-b", "cd", "resp-a"), c = ask("resp-c", "ef", "resp-a");
  ASSERT_EQ(c->status(), 200);
  EXPECT_EQ(a->answer->conversation, b->answer->conversation);
  EXPECT_NE(a->answer->conversation, c->answer->conversation) << "behind the first of two: a fork";
  std::vector<int32_t> ids = tiny_tokenizer().encode("ab");
  ids.insert(ids.end(), a->answer->choices[0].ids.begin(), a->answer->choices[0].ids.end());
  const auto more = tiny_tokenizer().encode("ef", {.add_special = false});
  ids.insert(ids.end(), more.begin(), more.end());
  expect_answer(*model_, *c, ids, text_request("", 6, 3));
  EXPECT_EQ(c->usage->prompt_tokens - c->usage->cached_tokens, std::ssize(more));
  EXPECT_EQ(server.conversations.get("", *a->answer->conversation).turns.size(), 2u);
  EXPECT_EQ(ask("resp-d", "ef", "resp-x")->status(), 404);
  const auto forks = server.conversations.list("", 100).size();
  GenerateRequest r = text_request("ab", 50);
  r.id = "resp-e";
  r.thread.previous_response = "resp-a";
  int64_t ticket = 0;
  const auto gone = server.submit(r, &ticket);
  for (int i = 0; i < 5; ++i) server.service.step();
  server.service.cancel(ticket);
  server.run_dry();
  EXPECT_EQ(gone->status(), 499);
  EXPECT_EQ(server.conversations.list("", 100).size(), forks) << "the fork of a request that was not answered is gone";
}

TEST_F(ServiceTest, MessagesGoOnWithAConversation) {
  Server server(*model_);
  GenerateRequest r = chat_request({{"user", "ab"}}, 6, 3);
  r.thread.conversation = "talk";
  const auto a = server.ask(r);
  expect_answer(*model_, *a, chat_ids(r.input.messages), r);
  std::vector<int32_t> ids = server.conversations.get("", "talk").ids();
  const auto more = tiny_tokenizer().encode("<e><u>cd<e><a>", {.add_special = false});
  ids.insert(ids.end(), more.begin(), more.end());
  r.input.messages = {{"user", "cd"}};
  expect_answer(*model_, *server.ask(r), ids, r);
}

TEST_F(ServiceTest, WhatMakesNoSenseIsRefusedAtOnce) {
  Server server(*model_, {.max_prompt_tokens = 20, .max_tokens = 50, .max_n = 4});
  const auto param_of = [&](auto&& change) -> std::string {
    GenerateRequest r = text_request("ab", 5);
    change(r);
    try {
      server.submit(r);
    } catch (const ServeError& e) {
      EXPECT_EQ(e.status(), 400);
      return e.param().value_or("-");
    }
    return "accepted";
  };
  using R = GenerateRequest;
  EXPECT_EQ(param_of([](R&) {}), "accepted");
  EXPECT_EQ(param_of([](R& r) { r.max_tokens = 51; }), "max_tokens");
  EXPECT_EQ(param_of([](R& r) { r.max_tokens = -1; }), "max_tokens");
  EXPECT_EQ(param_of([](R& r) { r.n = 5; }), "n");
  EXPECT_EQ(param_of([](R& r) { r.n = 0; }), "n");
  EXPECT_EQ(param_of([](R& r) { r.n = 2, r.max_tokens = 0; }), "n");
  EXPECT_EQ(param_of([](R& r) { r.n = 2, r.thread.keep = true; }), "n");
  EXPECT_EQ(param_of([](R& r) { r.priority = 101; }), "priority");
  EXPECT_EQ(param_of([](R& r) { r.logprobs = 30; }), "logprobs");
  EXPECT_EQ(param_of([](R& r) { r.input.ids = {1}; }), "prompt");
  EXPECT_EQ(param_of([](R& r) { r.input.text.reset(); }), "prompt");
  EXPECT_EQ(param_of([](R& r) { r.input.text.reset(), r.input.ids = {29}; }), "prompt");
  EXPECT_EQ(param_of([](R& r) { r.input.text.reset(), r.input.ids = std::vector<int32_t>(21, 5); }), "prompt");
  EXPECT_EQ(param_of([](R& r) { r.thread = {"a", "b", false}; }), "previous_response_id");
  EXPECT_EQ(param_of([](R& r) { r.sampler.top_p = 2; }), "-");
  EXPECT_EQ(param_of([](R& r) { r.stops = {""}; }), "-");
  server.run_dry();
  EXPECT_EQ(server.ask(text_request(std::string(21, 'a'), 5))->status(), 400) << "known once it is tokenised";
  EXPECT_EQ(server.ask(ids_request({}, 5))->status(), 400);
}

TEST_F(ServiceTest, TrapG1_TenThousandRequestsWithRandomAborts) {
  Server server(*model_, {.max_running = 8, .max_queue = 100, .prefill_tokens = 16});
  Rng rng(11);
  std::vector<std::pair<int64_t, std::shared_ptr<Recorder>>> alive;
  int asked = 0, answered = 0, gone = 0, refused = 0;
  const auto look = [&] {
    std::erase_if(alive, [&](const auto& a) {
      if (!a.second->has_ended()) return false;
      EXPECT_EQ(a.second->ended, 1);
      EXPECT_EQ(a.second->out_of_order, 0);
      ++(a.second->status() == 200 ? answered : a.second->status() == 499 ? gone : refused);
      return true;
    });
  };
  while (asked < 10'000) {
    for (uint64_t i = rng.below(6); i > 0; --i, ++asked) {
      const uint64_t prompt = 1 + rng.below(12), tokens = rng.below(9);
      GenerateRequest r = ids_request(krait::test::random_ids(static_cast<int64_t>(prompt), 29, asked % 50),
                                      static_cast<int64_t>(tokens), static_cast<uint64_t>(asked));
      if (asked % 7 == 0 && tokens > 0) r.n = 3;
      if (asked % 5 == 0 && r.n == 1) r.thread.conversation = "c" + std::to_string(asked % 20);
      int64_t ticket = 0;
      try {
        auto heard = server.submit(r, &ticket);
        alive.emplace_back(ticket, std::move(heard));
      } catch (const ServeError& e) {
        EXPECT_EQ(e.status(), 429);
        ++refused;
      }
    }
    if (!alive.empty() && rng.below(2) == 0) server.service.cancel(alive[rng.below(alive.size())].first);
    server.service.step();
    server.clock.advance(std::chrono::milliseconds(rng.below(3)));
    look();
  }
  server.run_dry();
  look();
  EXPECT_TRUE(alive.empty());
  EXPECT_EQ(answered + gone + refused, asked);
  EXPECT_GT(answered, 2000);
  EXPECT_GT(gone, 500);
  const ServiceStats s = server.service.stats();
  EXPECT_EQ(s.free_slots, 8);
  EXPECT_EQ(s.running + s.queued, 0);
  EXPECT_THAT(server.faults, testing::IsEmpty());
  for (int c = 0; c < 20; c += 5) {  // no conversation is still held
    GenerateRequest r = text_request("ab", 1);
    r.thread.conversation = "c" + std::to_string(c);
    EXPECT_EQ(server.ask(r)->status(), 200);
  }
}

TEST_F(ServiceTest, TrapG2_TenTimesAsManyClientsAsSlots) {
  Server server(*model_, {.max_running = 4});
  std::vector<std::shared_ptr<Recorder>> heard;
  for (uint64_t i = 0; i < 40; ++i) heard.push_back(server.submit(text_request("ab cd", 12, i)));
  server.run_dry();
  for (uint64_t i = 0; i < 40; ++i) {
    expect_answer(*model_, *heard[i], tiny_tokenizer().encode("ab cd"), text_request("", 12, i));
  }
}

TEST_F(ServiceTest, AQueueThatIsFullSaysWhenToComeAgain) {
  Server server(*model_, {.max_running = 2, .max_queue = 3, .max_queue_per_tenant = 4});
  const auto status = [&](const std::string& tenant) {
    GenerateRequest r = text_request("ab", 5);
    r.tenant = tenant;
    try {
      server.submit(r);
    } catch (const ServeError& e) {
      EXPECT_GE(e.retry_after().value_or(0), 1);
      return e.code();
    }
    return std::string("accepted");
  };
  for (int i = 0; i < 4; ++i) EXPECT_EQ(status("a"), "accepted");
  EXPECT_EQ(status("a"), "too_many_requests");
  EXPECT_EQ(status("b"), "accepted");
  EXPECT_EQ(status("c"), "queue_full");
  server.run_dry();
  EXPECT_EQ(status("c"), "accepted");
}

TEST_F(ServiceTest, WhoWaitsTooLongIsToldSo) {
  Server server(*model_, {.max_running = 1, .max_wait = std::chrono::milliseconds(1000)});
  const auto runs = server.submit(text_request("ab", 400));
  for (int i = 0; i < 5; ++i) server.service.step();
  GenerateRequest hasty = text_request("ab", 5);
  hasty.max_wait = std::chrono::milliseconds(50);
  const auto first = server.submit(hasty), second = server.submit(text_request("ab", 5));
  server.service.step();
  server.clock.advance(std::chrono::milliseconds(100));
  server.service.step();
  EXPECT_EQ(first->status(), 503);
  EXPECT_EQ(first->error->code(), "queue_timeout");
  EXPECT_EQ(second->status(), 0);
  server.clock.advance(std::chrono::milliseconds(1000));
  server.service.step();
  EXPECT_EQ(second->status(), 503);
  EXPECT_EQ(runs->status(), 0) << "what runs is not in the queue";
  server.run_dry();
  EXPECT_EQ(runs->status(), 200);
}

TEST_F(ServiceTest, PrioritiesAgeSoThatNobodyStarves) {
  Server server(*model_, {.max_running = 1, .max_queue = 1000, .max_wait = std::chrono::milliseconds(1000)});
  const auto submit = [&](int priority) {
    GenerateRequest r = text_request("ab", 3);
    r.priority = priority;
    return server.submit(r);
  };
  const auto runs = submit(0);
  for (int i = 0; i < 3; ++i) server.service.step();
  const auto low = submit(-100), high = submit(100);
  while (!high->has_ended()) server.service.step();
  EXPECT_FALSE(low->has_ended()) << "the higher one first";
  for (int i = 0; i < 1000 && !low->has_ended(); ++i) {  // a new one of the highest every 3 ms
    submit(100);
    server.clock.advance(std::chrono::milliseconds(3));
    for (int k = 0; k < 3; ++k) server.service.step();
  }
  EXPECT_EQ(low->status(), 200);
}

TEST_F(ServiceTest, TrapG8_OneFailureOneErrorAndTheNextRequestSucceeds) {
  Server server(*model_);
  auto broken = std::make_shared<Recorder>();
  broken->throws = true;
  const auto beside = server.submit(text_request("ab", 9));
  server.service.submit(text_request("ab", 9), broken);
  server.run_dry();
  EXPECT_EQ(broken->status(), 500) << "trap G4: a failure is not an empty success";
  EXPECT_EQ(broken->ended, 1);
  EXPECT_EQ(server.faults.size(), 1u);
  expect_answer(*model_, *beside, tiny_tokenizer().encode("ab"), text_request("", 9));
  expect_answer(*model_, *server.ask(text_request("ab", 9)), tiny_tokenizer().encode("ab"), text_request("", 9));
  EXPECT_EQ(server.service.stats().free_slots, 16);
}

TEST_F(ServiceTest, DrainFinishesWhatRunsAndTakesNothingNew) {
  Server server(*model_, {.max_running = 2});
  std::vector<std::shared_ptr<Recorder>> heard;
  for (uint64_t i = 0; i < 5; ++i) heard.push_back(server.submit(text_request("ab", 20, i)));
  EXPECT_TRUE(server.service.drain(std::chrono::milliseconds(1000)));
  for (const auto& h : heard) EXPECT_EQ(h->status(), 200);
  try {
    server.submit(text_request("ab", 5));
    ADD_FAILURE() << "it was taken";
  } catch (const ServeError& e) {
    EXPECT_EQ(e.status(), 503);
  }
}

TEST_F(ServiceTest, WhatIsLeftAtTheEndIsTold) {
  std::vector<std::shared_ptr<Recorder>> heard;
  {
    Server server(*model_, {.max_running = 2});
    for (uint64_t i = 0; i < 5; ++i) heard.push_back(server.submit(text_request("ab", 20, i)));
    for (int i = 0; i < 4; ++i) server.service.step();
  }
  for (const auto& h : heard) {
    EXPECT_EQ(h->status(), 503);
    EXPECT_EQ(h->ended, 1);
  }
}

// A machine whose passes take simulated time: so much each, and so much a token.
SetClock* pass_clock = nullptr;
void norm_that_takes_time(const Exec& exec, const NormParams& p) {
  cpu_kernels().norm(exec, p);
  pass_clock->advance(std::chrono::microseconds(1000 + 100 * p.T));
}

class Stopwatch : public Listener {
 public:
  explicit Stopwatch(const Clock& clock) : clock_(clock) {}
  void delta(const Delta&) override { at.push_back(clock_.steady()); }
  void done(const Answer&) override { ended = true; }
  void failed(const ServeError&) override { ADD_FAILURE(); }
  std::vector<std::chrono::nanoseconds> at;
  bool ended = false;

 private:
  const Clock& clock_;
};

TEST_F(ServiceTest, TimeBetweenTokensStaysBoundedWhileLongPromptsArrive) {
  KernelSet kernels = cpu_kernels();
  kernels.norm = norm_that_takes_time;
  const ModelSpec spec = krait::test::tiny_spec("mamba2");
  const Model model(spec, random_params(spec, 1, DType::kF32, krait::test::pool()), krait::test::runtime(kernels));
  Server server(model, {.max_running = 8});
  pass_clock = &server.clock;
  std::vector<std::shared_ptr<Stopwatch>> streams, prompts;
  for (uint64_t i = 0; i < 4; ++i) {
    GenerateRequest r = text_request("ab", 1500, i);
    r.id = "s" + std::to_string(i);
    server.service.submit(r, streams.emplace_back(std::make_shared<Stopwatch>(server.clock)));
  }
  for (int pass = 0; !streams[0]->ended; ++pass) {
    if (pass % 200 == 100 && prompts.size() < 5) {
      GenerateRequest r = ids_request(krait::test::random_ids(4096, 29, static_cast<uint64_t>(pass)), 4);
      r.id = "p" + std::to_string(pass);
      server.service.submit(r, prompts.emplace_back(std::make_shared<Stopwatch>(server.clock)));
    }
    ASSERT_TRUE(server.service.step());
  }
  std::vector<std::chrono::nanoseconds> gaps;
  for (const auto& s : streams)
    for (size_t i = 1; i < s->at.size(); ++i) gaps.push_back(s->at[i] - s->at[i - 1]);
  std::ranges::sort(gaps);
  const auto median = gaps[gaps.size() / 2], p99 = gaps[gaps.size() * 99 / 100];
  EXPECT_LE(p99.count(), 4 * median.count());
  EXPECT_LE(p99.count(), 3 * gaps.front().count()) << "against passes without a prompt";
  ASSERT_EQ(prompts.size(), 5u);
  for (const auto& p : prompts) EXPECT_TRUE(p->ended) << "and the prompts are read meanwhile";
}

TEST_F(ServiceTest, AFlushFollowsTheDeltasOfAPass) {
  struct Noter : Listener {
    void delta(const Delta&) override { ++noted, ++deltas; }
    void flush() override {
      EXPECT_GT(noted, 0);
      noted = 0;
    }
    void done(const Answer&) override { ended = true; }
    void failed(const ServeError&) override { ended = true; }
    int noted = 0, deltas = 0;
    bool ended = false;
  };
  Server server(*model_, {.max_running = 3});
  std::vector<std::shared_ptr<Noter>> all;
  for (const int64_t n : {1, 2, 5}) {
    GenerateRequest r = text_request("ab", 8, static_cast<uint64_t>(n));
    r.id = "r" + std::to_string(n);
    r.n = n;
    server.service.submit(r, all.emplace_back(std::make_shared<Noter>()));
  }
  while (server.service.step()) {
    for (const auto& one : all) EXPECT_TRUE(one->ended || one->noted == 0);
  }
  EXPECT_EQ(all[0]->deltas + all[1]->deltas + all[2]->deltas, 8 * (1 + 2 + 5));
}

// Finite, and yet more than a model can compute with: the file is taken, and the turn says what is wrong with it.
TEST_P(ServiceOf, AnAbsurdStateFailsItsOwnTurnsOnly) {
  Server server(*model_, {.max_running = 4});
  GenerateRequest first = text_request("abab", 5);
  first.thread.conversation = "good";
  ASSERT_EQ(server.ask(first)->status(), 200);
  State absurd = *server.service.state("", "good", {});
  for (StateView& block : absurd.blocks) {
    for (Tensor& t : block) {
      if (t.dtype() != DType::kF32) continue;
      t = t.clone();
      std::fill_n(t.f32(), t.numel(), 1e38f);
    }
  }
  server.service.check_foreign(absurd);
  server.conversations.import("", "absurd", std::make_shared<const State>(std::move(absurd)));
  for (const int64_t n : {6, 0, 6}) {  // 0: the input is only read
    GenerateRequest bad = text_request("cd", n);
    bad.thread.conversation = "absurd";
    const GenerateRequest beside = text_request("abab cd", 12, 5);
    const auto heard = server.submit(bad), other = server.submit(beside);
    server.run_dry();
    ASSERT_EQ(heard->status(), 422) << n;
    EXPECT_EQ(heard->error->code(), "state_unusable");
    expect_answer(*model_, *other, ids_of(beside), beside);
    EXPECT_TRUE(server.conversations.get("", "absurd").turns.empty());
  }
  EXPECT_EQ(server.service.stats().free_slots, 4);
  EXPECT_THAT(server.faults, testing::IsEmpty());
}

// With its own threads: what TSan looks at.
TEST_F(ServiceTest, ManyClientsAtOnce) {
  Server server(*model_, {.max_running = 4, .max_queue = 1000, .prefill_tokens = 16});
  std::jthread loop([&] { server.service.run(); });
  const auto requests = mixed_requests(24);
  std::vector<std::vector<std::shared_ptr<Recorder>>> heard(4);
  {
    std::vector<std::jthread> clients;
    for (size_t c = 0; c < heard.size(); ++c) {
      clients.emplace_back([&, c] {
        for (size_t i = 0; i < requests.size(); ++i) {
          GenerateRequest r = requests[i];
          if (c == 1 && r.n == 1) r.thread.conversation = "talk" + std::to_string(i);
          int64_t ticket = 0;
          heard[c].push_back(server.submit(r, &ticket));
          if (c == 2) server.service.cancel(ticket);
          if (i % 8 == 7) std::this_thread::sleep_for(std::chrono::milliseconds(2));
          (void)server.service.stats();
        }
      });
    }
  }
  EXPECT_TRUE(server.service.drain(std::chrono::seconds(60)));
  server.service.stop();
  loop.join();
  for (size_t c = 0; c < heard.size(); ++c) {
    for (size_t i = 0; i < requests.size(); ++i) {
      if (c == 2 && heard[c][i]->status() == 499) continue;
      expect_answer(*model_, *heard[c][i], ids_of(requests[i]), requests[i],
                    "client " + std::to_string(c) + ", request " + std::to_string(i));
    }
  }
  EXPECT_EQ(server.service.stats().free_slots, 4);
}

}  // namespace
}  // namespace krait::serve::test
