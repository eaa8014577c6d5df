// What the API reads and writes, without a model: requests, dialects, the log of streams, the document.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "krait/serve/api/api.h"
#include "krait/serve/api/dialect.h"
#include "krait/serve/api/read_request.h"
#include "krait/serve/api/schema.h"
#include "krait/serve/api/schemas.h"
#include "krait/serve/api/stream_log.h"
#include "krait/serve/cache/state_key.h"

namespace krait::serve {
namespace {

using nlohmann::json;

const ServedModels kModels = {{"m", 1, 7}, {"a", 2, 8}};

Asked read(Endpoint e, const json& body, const KeyInfo& key = {}) {
  return read_request(e, body, key, real_clock(), kModels);
}

ApiOptions options() {
  ApiOptions o;
  o.models = {{"m"}};
  o.vocab = 300;
  return o;
}

TEST(ReadRequest, GenerateHasItsOwnDefaults) {
  const Asked a = read(Endpoint::kGenerate, {{"prompt", "x"}});
  const GenerateRequest& r = a.requests.at(0);
  EXPECT_EQ(r.max_tokens, 512);
  EXPECT_EQ(r.sampler.temperature, 0.7);
  EXPECT_EQ(r.sampler.top_p, 0.9);
  EXPECT_TRUE(r.thread.keep);
  EXPECT_EQ(r.id, a.id);
  EXPECT_NE(a.requests[0].sampler.seed, read(Endpoint::kGenerate, {{"prompt", "x"}}).requests[0].sampler.seed);
  EXPECT_FALSE(read(Endpoint::kGenerate, {{"prompt", "x"}, {"store", false}}).requests[0].thread.keep);
}

TEST(ReadRequest, TheModelIsOneOfThoseServed) {
  EXPECT_EQ(read(Endpoint::kGenerate, {{"prompt", "x"}}).requests[0].adapter, -1);
  EXPECT_EQ(read(Endpoint::kGenerate, {{"prompt", "x"}, {"model", nullptr}}).model, "m");
  EXPECT_EQ(read(Endpoint::kGenerate, {{"prompt", "x"}, {"model", "a"}}).requests[0].adapter, 0);
  const Asked several = read(Endpoint::kCompletion, {{"prompt", {"x", "y"}}, {"model", "a"}});
  EXPECT_EQ(several.requests[1].adapter, 0);
  try {
    read(Endpoint::kGenerate, {{"prompt", "x"}, {"model", "b"}});
    FAIL();
  } catch (const ServeError& e) {
    EXPECT_EQ(e.status(), 404);
    EXPECT_EQ(error_json(e)["error"]["code"], "model_not_found");
    EXPECT_EQ(error_json(e)["error"]["param"], "model");
  }
}

TEST(EventText, IsTheDumpOfTheEvent) {
  for (const char* text :
       {"", "a word", "\"quoted\" \\", "line\n\ttab", "\xc3\xa4\xe2\x82\xac", "cut \xe2\x82", "\x7f\x01"}) {
    const auto event = [](const std::string& t) {
      return json{{"id", "x"}, {"choices", {{{"text", t}, {"index", 0}}}}, {"model", "\"m\""}};
    };
    EXPECT_EQ(EventText(event(EventText::kHere)).with(text), dump(event(text)));
  }
}

// Without a temperature the filters change nothing, and the sampler refuses what has no effect.
TEST(ReadRequest, GreedyNeedsNoFilters) {
  const auto s =
      read(Endpoint::kCompletion, {{"prompt", "x"}, {"temperature", 0}, {"top_p", 0.5}, {"top_k", 3}, {"min_p", 0.1}})
          .requests[0]
          .sampler;
  EXPECT_EQ(s.temperature, 0);
  EXPECT_EQ(s.top_p, 1);
  EXPECT_EQ(s.top_k, 0);
  const auto least = read(Endpoint::kCompletion, {{"prompt", "x"}, {"top_p", 0}}).requests[0].sampler;
  EXPECT_EQ(least.top_k, 1);
}

TEST(ReadRequest, BiasForbids) {
  const auto s =
      read(Endpoint::kCompletion, {{"prompt", "x"}, {"logit_bias", {{"5", -100}, {"6", 2.5}}}}).requests[0].sampler;
  EXPECT_TRUE(std::isinf(s.logit_bias.at(5)));
  EXPECT_EQ(s.logit_bias.at(6), 2.5);
}

TEST(ReadRequest, PromptsOfEveryKind) {
  EXPECT_EQ(read(Endpoint::kCompletion, {{"prompt", "ab"}}).requests[0].input.text, "ab");
  EXPECT_EQ(read(Endpoint::kCompletion, {{"prompt", {1, 2.0}}}).requests[0].input.ids, (std::vector<int32_t>{1, 2}));
  const Asked several = read(Endpoint::kCompletion, {{"prompt", {"a", "b"}}, {"n", 2}});
  ASSERT_EQ(several.requests.size(), 2U);
  EXPECT_EQ(several.requests[0].id, several.id);
  EXPECT_NE(several.requests[1].id, several.id);
  EXPECT_EQ(read(Endpoint::kCompletion, {{"prompt", json::array({json::array({1}), json::array({2, 3})})}})
                .requests[1]
                .input.ids,
            (std::vector<int32_t>{2, 3}));
}

TEST(ReadRequest, MessagesAndParts) {
  const json body = {
      {"messages",
       {{{"role", "developer"}, {"content", "be brief"}},
        {{"role", "user"},
         {"content", json::array({{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}})}}}},
      {"max_completion_tokens", 7}};
  const auto r = read(Endpoint::kChat, body).requests[0];
  ASSERT_EQ(r.input.messages.size(), 2U);
  EXPECT_EQ(r.input.messages[0].role, "system");
  EXPECT_EQ(r.input.messages[1].content, "ab");
  EXPECT_EQ(r.max_tokens, 7);
}

TEST(ReadRequest, PriorityIsTheKeysToGive) {
  const KeyInfo key{"k", "tenant", {}};
  EXPECT_EQ(read(Endpoint::kGenerate, {{"prompt", "x"}, {"priority", -5}}, key).requests[0].priority, -5);
  EXPECT_THROW(read(Endpoint::kGenerate, {{"prompt", "x"}, {"priority", 1}}, key), ServeError);
}

Answer some_answer() {
  Answer a;
  a.choices.resize(1);
  a.choices[0].text = "hello\xff";
  a.choices[0].finish_reason = "length";
  a.usage = {.prompt_tokens = 3, .cached_tokens = 2, .completion_tokens = 1, .miss = MissReason::kDiverged};
  a.conversation = "conv-1";
  return a;
}

// Trap G7: whatever the model writes can be sent.
TEST(Dialect, TrapG7_TextThatIsNoUtf8IsStillJson) {
  const auto d = generate_dialect(read(Endpoint::kGenerate, {{"prompt", "x"}}));
  const json out = json::parse(dump(d->whole(some_answer())));
  EXPECT_EQ(out["text"], "hello\xEF\xBF\xBD");
  EXPECT_EQ(out["tokens_generated"], 1);
  EXPECT_EQ(out["cache_miss"], "diverged");
  EXPECT_EQ(out["model"], "m");
  EXPECT_EQ(out["conversation_id"], "conv-1");
}

// The pieces of a response's stream make its whole text, and are numbered without gaps.
TEST(Dialect, ResponseEvents) {
  const auto d = response_dialect(read(Endpoint::kResponse, {{"model", "m"}, {"input", "x"}}));
  std::vector<json> events;
  const Dialect::Emit emit = [&](const std::string& event, const std::string& data) {
    events.push_back(json::parse(data));
    EXPECT_EQ(event, events.back()["type"]);
  };
  d->begin({}, emit);
  d->delta({.choice = 0, .token = 1, .text = "hel", .token_text = "hel", .logprobs = {}}, emit);
  Answer a = some_answer();
  a.choices[0].text = "hello";
  a.choices[0].last_text = "lo";
  a.choices[0].finish_reason = "stop";
  d->done(a, emit);
  std::string text;
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i]["sequence_number"], i);
    if (events[i]["type"] == "response.output_text.delta") text += events[i]["delta"].get<std::string>();
  }
  EXPECT_EQ(text, "hello");
  EXPECT_EQ(events.front()["type"], "response.created");
  EXPECT_EQ(events.back()["type"], "response.completed");
  EXPECT_EQ(events.back()["response"]["output"][0]["content"][0]["text"], "hello");
}

class FixedClock : public Clock {
 public:
  std::chrono::nanoseconds steady() const override { return now; }
  std::chrono::system_clock::time_point wall() const override { return {}; }
  std::chrono::nanoseconds now{1};
};

TEST(StreamLog, ForgetsTheOldestAndForeignOnes) {
  FixedClock clock;
  StreamLog log(14'000, std::chrono::seconds(10), clock);
  const auto asked = std::make_shared<const Asked>();
  const auto first = log.open("a", "tenant", asked);
  {
    const std::lock_guard lock(log.mutex);
    log.append(*first, {"a:0", "", std::string(5000, 'x')});
  }
  EXPECT_EQ(log.find("a", "tenant"), first);
  EXPECT_EQ(log.find("a", "other"), nullptr);
  const auto second = log.open("b", "tenant", asked);
  {
    const std::lock_guard lock(log.mutex);
    log.append(*second, {"b:0", "", std::string(8000, 'x')});
  }
  EXPECT_EQ(log.find("a", "tenant"), nullptr);
  EXPECT_EQ(log.find("b", "tenant"), second);
  clock.now += std::chrono::seconds(11);
  EXPECT_EQ(log.find("b", "tenant"), nullptr);
}

// Clients that ask for streams of long prompts and go, again and again, must not fill the memory.
TEST(StreamLog, CountsRequestsAndForgetsWhatNobodyHeardOf) {
  FixedClock clock;
  StreamLog log(100'000, std::chrono::seconds(10), clock);
  const auto asked = std::make_shared<const Asked>(
      read(Endpoint::kGenerate, {{"prompt", std::string(40'000, 'x')}, {"stream", true}}));
  for (const char* id : {"a", "b", "c"}) log.open(id, "", asked);
  EXPECT_EQ(log.find("a", ""), nullptr);
  EXPECT_NE(log.find("b", ""), nullptr);
  log.forget_untold("c");
  EXPECT_EQ(log.find("c", ""), nullptr);
  log.find("b", "")->told = true;
  log.forget_untold("b");
  EXPECT_NE(log.find("b", ""), nullptr);
  log.open("d", "", asked);  // there is room for two
  EXPECT_NE(log.find("b", ""), nullptr);
}

TEST(OpenApi, DescribesEveryRoute) {
  const json doc = json::parse(openapi_document(options()));
  for (const Route& r : routes()) {
    std::string method = r.method;
    for (char& c : method) c = static_cast<char>(c | 0x20);
    ASSERT_TRUE(doc["paths"].contains(r.path)) << r.path;
    EXPECT_TRUE(doc["paths"][r.path].contains(method)) << r.path;
  }
  // What is referred to is there.
  const std::string text = doc.dump(), mark = "#/components/schemas/";
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
    const std::string name = text.substr(at + mark.size(), text.find('"', at) - at - mark.size());
    EXPECT_TRUE(doc["components"]["schemas"].contains(name)) << name;
  }
}

TEST(Ids, Form) {
  EXPECT_TRUE(is_id("conv-1_A"));
  for (const std::string bad : {"", "a/b", "a.b", "ä", "a b", "../x"}) EXPECT_FALSE(is_id(bad)) << bad;
  EXPECT_FALSE(is_id(std::string(129, 'a')));
  EXPECT_TRUE(is_id(new_id("resp_")));
  EXPECT_NE(new_id("x"), new_id("x"));
}

}  // namespace
}  // namespace krait::serve
