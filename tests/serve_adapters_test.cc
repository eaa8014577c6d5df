// The service on a model with adapters: each request is answered as its adapter answers alone, and nothing that was
// read with one is used with another.
#include <gmock/gmock.h>

#include "krait/io/test_folder.h"
#include "krait/serve/cache/disk_store.h"
#include "krait/train/lora.h"
#include "tests/lora_models.h"
#include "tests/serve_tools.h"

namespace krait::serve::test {
namespace {

using krait::test::random_adapter;
using krait::test::share;
using testing::HasSubstr;
using text::Message;

struct Models {
  explicit Models(const std::string& name) {
    const ModelSpec spec = krait::test::tiny_spec(name);
    const ParamStore params = random_params(spec, 1, DType::kF32, krait::test::pool());
    plain = tiny_model(name);
    Adapter tuned = random_adapter(spec, 2);  // with a beginning of its own, too
    train::add_initial_states(tuned, *plain);
    for (auto& [state, t] : tuned.states) t = krait::test::random_tensor(t.shape(), 5, 0.5);
    const Adapters adapters = {share(random_adapter(spec, 1)), share(std::move(tuned))};
    for (const auto& a : adapters) {
      alone.push_back(std::make_unique<Model>(spec, params, krait::test::runtime(), Adapters{a}, 0));
    }
    all = std::make_unique<Model>(spec, params, krait::test::runtime(), adapters, -1);
  }
  // What a model that knows of no other adapter answers.
  Expected want(GenerateRequest r, const std::vector<int32_t>& ids) const {
    const Model& m = r.adapter < 0 ? *plain : *alone[static_cast<size_t>(r.adapter)];
    r.adapter = m.default_adapter();
    return expected(m, ids, r);
  }
  std::unique_ptr<Model> all, plain;
  std::vector<std::unique_ptr<Model>> alone;
};

class AdaptersOf : public testing::TestWithParam<std::string> {
 protected:
  void expect_answer(const Recorder& heard, const GenerateRequest& r, const std::vector<int32_t>& ids) const {
    ASSERT_EQ(heard.status(), 200) << (heard.error ? heard.error->what() : "");
    EXPECT_EQ(heard.answer->choices[0].ids, models_.want(r, ids).ids) << "adapter " << r.adapter;
  }
  const Models models_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Tiny, AdaptersOf, testing::ValuesIn(krait::test::tiny_names()),
                         [](const auto& model) { return model.param; });

GenerateRequest asked(GenerateRequest r, int32_t adapter, const std::string& conversation = "") {
  r.adapter = adapter;
  if (!conversation.empty()) r.thread.conversation = conversation;
  return r;
}

std::string refusal(const Recorder& heard) {
  return heard.error ? std::to_string(heard.error->status()) + " " + heard.error->code() : "none";
}

// The same prompts for all, so that whatever mixes adapters up finds states to mix up; first side by side, then behind
// cached states.
TEST_P(AdaptersOf, TrapE9_ABatchOfAllAnswersAsEachAlone) {
  Server server(*models_.all, {.max_running = 5, .prefill_tokens = 16, .checkpoint_every = 8});
  for (int round = 0; round < 2; ++round) {
    std::vector<GenerateRequest> requests;
    std::vector<std::vector<int32_t>> ids;
    std::vector<std::shared_ptr<Recorder>> heard;
    for (uint64_t i = 0; i < 30; ++i) {
      const auto adapter = static_cast<int32_t>(i % 3) - 1;
      const std::string text = "abab cdfe abcd" + std::string(i / 6, 'b');
      const std::vector<Message> chat = {{"system", "ab"}, {"user", text}};
      const bool is_chat = i % 2 == 0;
      requests.push_back(asked(is_chat ? chat_request(chat, 12, i) : text_request(text, 12, i), adapter));
      ids.push_back(is_chat ? chat_ids(chat) : tiny_tokenizer().encode(text));
      heard.push_back(server.submit(requests.back()));
    }
    server.run_dry();
    for (size_t i = 0; i < requests.size(); ++i) {
      expect_answer(*heard[i], requests[i], ids[i]);
      if (round == 1) {
        EXPECT_EQ(heard[i]->usage->cached_tokens, std::ssize(ids[i])) << "of its own adapter's";
      }
    }
    EXPECT_THAT(server.faults, testing::IsEmpty());
  }
}

TEST_P(AdaptersOf, TrapE9_AConversationStaysWithItsAdapter) {
  Server server(*models_.all, {.max_running = 2});
  std::vector<int32_t> history;
  for (uint64_t turn = 0; turn < 3; ++turn) {
    const GenerateRequest r = asked(text_request("ab cd", 7, turn), 1, "talk");
    const auto heard = server.ask(r);
    const auto prompt = tiny_tokenizer().encode("ab cd", {.add_special = turn == 0});
    history.insert(history.end(), prompt.begin(), prompt.end());
    expect_answer(*heard, r, history);
    EXPECT_EQ(heard->usage->cached_tokens, std::ssize(history) - std::ssize(prompt));
    const auto& ids = heard->answer->choices[0].ids;
    history.insert(history.end(), ids.begin(), ids.end());
  }
  for (const int32_t other : {-1, 0}) {
    const auto named = server.ask(asked(text_request("ab", 3), other, "talk"));
    EXPECT_EQ(refusal(*named), "400 wrong_model");
    EXPECT_EQ(named->error->param(), "model");
    EXPECT_THAT(named->error->what(), HasSubstr("with adapter 'a2', and cannot go on " +
                                                std::string(other < 0 ? "without an adapter" : "with adapter 'a1'")));
    for (const bool discard : {false, true}) {
      GenerateRequest behind = asked(text_request("ab", 3), other);
      behind.thread.previous_response = "r-2";
      behind.thread.discard = discard;
      EXPECT_EQ(refusal(*server.ask(behind)), "400 wrong_model");
    }
  }
  EXPECT_EQ(server.conversations.get("", "talk").turns.size(), 3U) << "nothing was added";
  EXPECT_EQ(server.service.state("", "talk", {})->model_fingerprint, models_.all->fingerprint(1));
  GenerateRequest fork = asked(text_request("ab", 3), 1);
  fork.thread.previous_response = "r-1";
  const auto forked = server.ask(fork);
  ASSERT_EQ(forked->status(), 200);
  EXPECT_EQ(server.conversations.get("", *forked->answer->conversation).model, models_.all->fingerprint(1));
}

// States of conversations are computed again with the adapter that read them, and come back from a disk as its own.
TEST_P(AdaptersOf, TrapE9_StatesOnDiskAndFromOutside) {
  const io::TestFolder folder;
  SetClock clock;
  const auto disk = open_disk_store({folder.path(), 1 << 24, &clock});
  std::shared_ptr<const State> state;
  {
    Server server(*models_.all, {.max_running = 2}, {}, disk.get());
    ASSERT_EQ(server.ask(asked(text_request("ab cd", 7), 0, "talk"))->status(), 200);
    state = server.service.state("", "talk", {});
  }
  Server server(*models_.all, {.max_running = 2}, {}, disk.get());
  EXPECT_TRUE(*server.service.state("", "talk", {}) == *state);
  EXPECT_EQ(refusal(*server.ask(asked(text_request("ab", 3), 1, "talk"))), "400 wrong_model");
  EXPECT_EQ(refusal(*server.ask(asked(text_request("ab", 3), -1, "talk"))), "400 wrong_model");
  const auto next = server.ask(asked(text_request("ab", 3), 0, "talk"));
  EXPECT_EQ(next->usage->cached_tokens, state->position());

  server.service.check_foreign(*state);
  State stranger = *state;
  stranger.model_fingerprint ^= 1;
  EXPECT_THROW(server.service.check_foreign(stranger), Error);
  server.conversations.import("", "in", state);
  EXPECT_EQ(refusal(*server.ask(asked(text_request("ab", 3), -1, "in"))), "400 wrong_model");
  const auto behind = server.ask(asked(text_request("ab", 3), 0, "in"));
  ASSERT_EQ(behind->status(), 200);
  EXPECT_EQ(behind->answer->choices[0].ids, next->answer->choices[0].ids);

  // Without the disk's states: read again.
  for (const auto& e : std::filesystem::recursive_directory_iterator(folder / "blobs"))
    if (e.is_regular_file()) std::filesystem::remove(e.path());
  Server again(*models_.all, {.max_running = 2}, {}, disk.get());
  again.conversations.rewind("", "talk", 1);
  const auto computed = again.service.state("", "talk", {});
  EXPECT_EQ(computed->model_fingerprint, state->model_fingerprint);
  for (const TensorDiff& t : diff(*computed, *state).tensors) EXPECT_TRUE(t.equal) << t.name;
}

TEST_P(AdaptersOf, ThereIsNoOtherAdapter) {
  Server server(*models_.all);
  for (const int32_t none : {-2, 2}) {
    EXPECT_THROW(server.submit(asked(text_request("ab", 3), none)), ServeError);
  }
}

}  // namespace
}  // namespace krait::serve::test
