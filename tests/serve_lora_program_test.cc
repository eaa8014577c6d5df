// `krait serve --lora`: adapters as models of their own, in the program itself.
#include "krait/models/peft.h"
#include "tests/lora_models.h"
#include "tests/serve_program.h"

namespace krait::test {
namespace {

using testing::HasSubstr;

class ServeLora : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    base_ = model("mamba2");
    write_random("a", 1);
    write_random("b", 2);
  }
  void write_random(const std::string& name, uint64_t seed) const {
    const auto c = io::Checkpoint::open(base_);
    write_adapter(path(name), random_adapter(find_family(*c).parse(*c), seed));
  }
  Args serving(const Args& more = {}) const {
    return Args{base_,
                "--api-key",
                kKey,
                "--name",
                "base",
                "--lora",
                "pirate=" + path("a"),
                "--lora",
                "org/b:2=" + path("b") + "=0.5"} +
           more;
  }
  // The same text from the command line.
  std::string run(const Args& options) const {
    const Finished f = krait(Args{"run", base_, "-p", "It was", "-n", "12", "--seed", "1", "--temp", "0.7", "--top-k",
                                  "0", "--top-p", "0.9", "--json"} +
                             options);
    EXPECT_EQ(f.code, 0) << f.err;
    return f.parsed()["text"];
  }
  std::string base_;
};

const json kAskLora = {{"prompt", "It was"}, {"max_tokens", 12}, {"seed", 1}};

TEST_F(ServeLora, EachAdapterIsAModel) {
  Program server(serving());
  const json list = json::parse(server.get("/v1/models").body)["data"];
  ASSERT_EQ(list.size(), 3U);
  EXPECT_EQ(list[0]["id"], "base");
  EXPECT_TRUE(list[0]["parent"].is_null());
  EXPECT_EQ(list[1]["id"], "pirate");
  EXPECT_EQ(list[1]["parent"], "base");
  EXPECT_EQ(json::parse(server.get("/v1/models/org/b:2").body), list[2]);

  const std::vector<std::pair<std::string, Args>> all = {
      {"base", {}}, {"pirate", {"--lora", path("a")}}, {"org/b:2", {"--lora", path("b") + "=0.5"}}};
  std::set<std::string> texts;
  for (const auto& [name, options] : all) {
    const json answer = server.post("/generate", with(kAskLora, {{"model", name}, {"store", false}}));
    EXPECT_EQ(answer["text"], run(options)) << name;
    EXPECT_EQ(answer["model"], name);
    texts.insert(answer["text"]);
    json ask = with(kAskLora, {{"model", name}, {"temperature", 0.7}, {"top_p", 0.9}});
    const json completion = server.post("/v1/completions", ask);
    EXPECT_EQ(completion["choices"][0]["text"], answer["text"]);
    EXPECT_EQ(completion["model"], name);
    const Reply stream = server.send("POST", "/v1/completions", with(ask, {{"stream", true}}).dump());
    EXPECT_THAT(stream.body, HasSubstr("\"model\":\"" + name + "\""));
    EXPECT_EQ(server.post("/v1/chat/completions", {{"model", name},
                                                   {"messages", {{{"role", "user"}, {"content", "x"}}}},
                                                   {"max_tokens", 1},
                                                   {"seed", 1}})["model"],
              name);
  }
  EXPECT_EQ(texts.size(), 3U);
  EXPECT_EQ(server.post("/generate", kAskLora)["model"], "base") << "nothing asked for";

  for (const auto& [where, ask] : std::vector<std::pair<std::string, json>>{
           {"/generate", kAskLora},
           {"/v1/completions", kAskLora},
           {"/v1/chat/completions", {{"messages", {{{"role", "user"}, {"content", "x"}}}}}},
           {"/v1/responses", {{"input", "x"}}}}) {
    const Reply r = server.send("POST", where, with(ask, {{"model", "nobody"}}).dump());
    EXPECT_EQ(r.status, 404) << where;
    EXPECT_EQ(error_code(r), "model_not_found");
    EXPECT_EQ(json::parse(r.body)["error"]["param"], "model");
  }
  EXPECT_EQ(server.get("/v1/models/nobody").status, 404);

  const std::string metrics = server.get("/metrics").body;
  EXPECT_THAT(metrics, HasSubstr("mamba_model_answers_total{model=\"org/b:2\"} 4"));
  EXPECT_THAT(metrics, HasSubstr("mamba_model_tokens_generated_total{model=\"pirate\"} 37"));
  EXPECT_THAT(server.get("/openapi.json").body, HasSubstr("pirate, org/b:2"));
  const Finished f = server.end();
  EXPECT_THAT(f.err, HasSubstr("base, pirate, org/b:2"));
  EXPECT_THAT(f.err, HasSubstr("adapter=pirate"));
}

TEST_F(ServeLora, ConversationsResponsesAndStatesBelongToOneModel) {
  const Args disk = {"--state-dir", path("states")};
  const json talk = with(kAskLora, {{"model", "pirate"}, {"conversation_id", "talk"}});
  std::string state, second;
  {
    Program server(serving(disk));
    server.post("/generate", talk);
    state = server.get("/v1/states/talk/file").body;
    second = server.post("/generate", talk)["text"];
    EXPECT_EQ(json::parse(server.get("/v1/states").body)["data"][0]["model"], "pirate");
    for (const json& other : {json("base"), json("org/b:2"), json()}) {
      const Reply r = server.send("POST", "/generate", with(talk, {{"model", other}}).dump());
      EXPECT_EQ(r.status, 400);
      EXPECT_EQ(error_code(r), "wrong_model");
      EXPECT_THAT(r.body, HasSubstr("'pirate'"));
    }
    const json first = server.post("/v1/responses", {{"model", "pirate"}, {"input", "x"}, {"max_output_tokens", 3}});
    EXPECT_EQ(first["model"], "pirate");
    const json next = {{"input", "y"}, {"max_output_tokens", 3}, {"previous_response_id", first["id"]}};
    EXPECT_EQ(error_code(server.send("POST", "/v1/responses", with(next, {{"model", "base"}}).dump())), "wrong_model");
    const json went_on = server.post("/v1/responses", with(next, {{"model", "pirate"}}));
    EXPECT_GT(went_on["usage"]["input_tokens_details"]["cached_tokens"], 0);
    ASSERT_EQ(server.send("POST", "/v1/states/talk/rewind", json{{"turns", 1}}.dump()).status, 200);

    // A reload reads keys, certificate and log file: adapters and what they have read stay.
    server.kill(SIGHUP);
    const Reply in = server.send("POST", "/v1/states/in", state, kKey, "application/octet-stream");
    ASSERT_EQ(in.status, 200) << in.body;
    EXPECT_EQ(json::parse(in.body)["model"], "pirate");
    EXPECT_EQ(server.post("/generate", with(talk, {{"conversation_id", "in"}}))["text"], second);
    EXPECT_EQ(server.end().code, 0);
  }
  {  // another order and other names: adapters are told by what they hold
    Program server(Args{base_, "--api-key", kKey, "--lora", "b=" + path("b"), "--lora", "corsair=" + path("a")} + disk);
    EXPECT_EQ(json::parse(server.get("/v1/states/talk").body)["model"], "corsair");
    const json answer = server.post("/generate", with(talk, {{"model", "corsair"}}));
    EXPECT_EQ(answer["text"], second);
    EXPECT_GT(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    server.end();
  }
  {  // trained anew: another one
    write_random("a", 3);
    Program server(serving(disk));
    EXPECT_EQ(server.get("/v1/states/talk").status, 404);
    const Reply in = server.send("POST", "/v1/states/in2", state, kKey, "application/octet-stream");
    EXPECT_EQ(in.status, 400);
    EXPECT_EQ(error_code(in), "wrong_model");
    server.end();
  }
}

TEST_F(ServeLora, OptionsAreRefusedThatMakeNoSense) {
  const auto refused = [&](const Args& options, int code, const std::string& why) {
    const Finished f = krait(Args{"serve", base_, "--port", "0"} + options);
    EXPECT_EQ(f.code, code) << why;
    EXPECT_THAT(f.err, HasSubstr(why));
  };
  const std::string a = path("a");
  refused({"--lora", a}, 2, "NAME=DIR");
  refused({"--lora", a + "=0.5"}, 2, "NAME=DIR");
  refused({"--lora", "=" + a}, 2, "NAME=DIR");
  refused({"--lora", "a b=" + a}, 2, "NAME=DIR");
  refused({"--lora", "x=" + a + "=much"}, 2, "SCALE");
  refused({"--lora", "x=" + path("none")}, 1, "no adapter");
  refused({"--lora", "x=" + a, "--lora", "x=" + path("b")}, 2, "two adapters");
  refused({"--name", "x", "--lora", "x=" + a}, 2, "cannot be named 'x'");
  write("c.toml", "lora = [\"x=" + a + "\", \"x=" + path("b") + "\"]\n");
  refused({"--config", path("c.toml")}, 2, "two adapters");
}

TEST_F(ServeLora, TheConfigFileNamesAdapters) {
  write("c.toml", "name = \"base\"\nlora = [\"pirate=" + path("a") + "\", \"b=" + path("b") + "=0.5\"]\n");
  Program server({base_, "--api-key", kKey, "--config", path("c.toml")});
  EXPECT_EQ(json::parse(server.get("/v1/models").body)["data"].size(), 3U);
  EXPECT_EQ(server.post("/generate", with(kAskLora, {{"model", "b"}}))["text"], run({"--lora", path("b") + "=0.5"}));
  server.end();
}

}  // namespace
}  // namespace krait::test
