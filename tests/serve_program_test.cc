// `krait serve` as its clients see it: the program itself, over sockets, with the shipped model.
#include <xxhash.h>

#include <limits>

#include "krait/io/test_folder.h"
#include "tests/serve_program.h"

namespace krait::test {
namespace {

constexpr const char* kOther = "a-key-of-somebody-else";

TEST(ServeProgram, AnswersAreTheSameAloneInAConversationAndStreamed) {
  Program server({"--api-key", kKey});
  const json one = server.post("/generate", kAsk);
  EXPECT_EQ(one["tokens_generated"], 12);
  EXPECT_EQ(server.post("/generate", kAsk)["text"], one["text"]);
  const Reply stream = server.send("POST", "/generate", with(kAsk, {{"stream", true}}).dump());
  std::string text;
  std::istringstream lines(stream.body);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("data: ")) continue;
    const json event = json::parse(line.substr(6));
    if (!event.contains("tokens_generated")) text += event["text"];
  }
  EXPECT_EQ(text, one["text"]);
  const Finished f = server.end();
  EXPECT_EQ(f.code, 0);
  EXPECT_EQ(f.err.find(kKey), std::string::npos);
  EXPECT_EQ(f.err.find("dark night"), std::string::npos);
}

// The events after the one that a client saw last; what was not written when it went is written then.
TEST(ServeProgram, BrokenStreamsGoOn) {
  Program server({"--api-key", kKey});
  const json ask = {{"prompt", "It was"}, {"max_tokens", 300}, {"seed", 2}, {"ignore_eos", true}};
  const std::string whole = server.post("/generate", ask)["text"];
  const std::string body = with(ask, {{"stream", true}}).dump();
  std::string begin;
  {
    TestClient c = server.connect();
    c.send("POST /generate HTTP/1.1\r\nHost: localhost\r\n" + Program::authorization(kKey) +
           "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    ASSERT_TRUE(c.wait_for(":1\n"));
    begin = c.buffered();
  }
  const size_t at = begin.find("\nid: ") + 5;
  const std::string id = begin.substr(at, begin.find(":0\n", at) - at);
  const Reply rest = server.get("/v1/streams/" + id, kKey, "Last-Event-ID: " + id + ":0\r\n");
  ASSERT_EQ(rest.status, 200) << rest.body;
  EXPECT_EQ(rest.body.find("id: " + id + ":0\n"), std::string::npos);
  EXPECT_NE(rest.body.find("id: " + id + ":1\n"), std::string::npos);
  const size_t done = rest.body.find("event: done\ndata: ");
  ASSERT_NE(done, std::string::npos);
  const std::string last = rest.body.substr(done + 18);
  EXPECT_EQ(json::parse(last.substr(0, last.find('\n')))["text"], whole);
  EXPECT_EQ(server.get("/v1/streams/" + id, kOther).status, 401);
  EXPECT_EQ(server.get("/v1/streams/" + id, kKey, "Last-Event-ID: other:0\r\n").status, 400);
  server.end();
}

std::string field(const std::string& event, const std::string& name) {
  const size_t at = event.find("\n" + name + ": ");
  return at == std::string::npos ? ""
                                 : event.substr(at + name.size() + 3, event.find('\n', at + 1) - at - name.size() - 3);
}

// Texts of the choices of a stream of completions.
std::vector<std::string> texts_of(const std::string& stream, size_t choices) {
  std::vector<std::string> out(choices);
  std::istringstream lines(stream);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("data: {")) continue;
    for (const json& c : json::parse(line.substr(6))["choices"]) out.at(c["index"]) += c["text"];
  }
  return out;
}

// How the choices take turns depends on what else runs: a stream that is run again counts the events of each.
TEST(ServeProgram, BrokenStreamsOfSeveralPromptsGoOn) {
  Program server({"--api-key", kKey, "--slots", "2"});
  const std::string model = json::parse(server.get("/v1/models").body)["data"][0]["id"];
  const json ask = {{"model", model},     {"prompt", {"It was", "The long night of the old man was", "x"}},
                    {"max_tokens", 80},   {"seed", 3},
                    {"ignore_eos", true}, {"stream", true}};
  const std::string body = ask.dump();
  const auto whole = texts_of(server.send("POST", "/v1/completions", body).body, 3);
  TestClient c = server.connect();
  c.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + Program::authorization(kKey) +
         "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  ASSERT_TRUE(c.wait_for(":30\n"));
  const std::string id = field(c.buffered(), "id");
  c.close();
  const Reply again = server.get("/v1/streams/" + id.substr(0, id.find(':')));
  EXPECT_EQ(texts_of(again.body, 3), whole);
  EXPECT_EQ(server
                .get("/v1/streams/" + id.substr(0, id.find(':')), kKey,
                     "Last-Event-ID: " + id.substr(0, id.find(':')) + ":99999\r\n")
                .status,
            400);
  server.end();
}

// A stream of a conversation is not run again behind another turn.
TEST(ServeProgram, BrokenStreamsOfConversationsThatWentOnAreRefused) {
  Program server({"--api-key", kKey});
  const std::string body =
      with(kAsk, {{"conversation_id", "c"}, {"max_tokens", 5000}, {"ignore_eos", true}, {"stream", true}}).dump();
  TestClient c = server.connect();
  c.send("POST /generate HTTP/1.1\r\nHost: localhost\r\n" + Program::authorization(kKey) +
         "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  ASSERT_TRUE(c.wait_for(":3\n"));
  const std::string id = field(c.buffered(), "id");
  c.close();
  Reply other;
  for (int i = 0; i < 200 && other.status != 200;
       ++i, usleep(25'000)) {  // 409 until the server knows that the client went
    other = server.send("POST", "/generate", with(kAsk, {{"conversation_id", "c"}}).dump());
  }
  ASSERT_EQ(other.status, 200);
  const Reply again = server.get("/v1/streams/" + id.substr(0, id.find(':')));
  EXPECT_EQ(again.status, 409) << again.body.substr(0, 500);
  EXPECT_EQ(json::parse(server.get("/v1/states/c").body)["turns"], 1);
  server.end();
}

TEST(ServeProgram, NothingIsKeptThatIsNotToBeKept) {
  Program server({"--api-key", kKey});
  const std::string model = json::parse(server.get("/v1/models").body)["data"][0]["id"];
  const json ask = {{"model", model}, {"input", "Who are you?"}, {"max_output_tokens", 8}, {"seed", 1}};
  const std::string first = server.post("/v1/responses", ask)["id"];
  const json kept = server.post("/v1/responses", with(ask, {{"previous_response_id", first}}));
  const json not_kept = server.post("/v1/responses", with(ask, {{"previous_response_id", first}, {"store", false}}));
  EXPECT_EQ(not_kept["output"][0]["content"], kept["output"][0]["content"]);
  EXPECT_EQ(json::parse(server.get("/v1/states").body)["data"].size(), 1U);
  EXPECT_EQ(server.send("POST", "/v1/responses", with(ask, {{"previous_response_id", not_kept["id"]}}).dump()).status,
            404);
  // An answer may be sent back as it came.
  const json back = {
      {{"role", "user"}, {"content", "Who are you?"}}, kept["output"][0], {{"role", "user"}, {"content", "Go on."}}};
  server.post("/v1/responses", with(ask, {{"input", back}, {"store", false}}));
  server.end();
}

TEST(ServeProgram, InstructionsStandWhereAConversationBegins) {
  Program server({"--api-key", kKey});
  const std::string model = json::parse(server.get("/v1/models").body)["data"][0]["id"];
  const json ask = {{"model", model},        {"input", "Who are you?"}, {"instructions", "Be brief."},
                    {"conversation", "new"}, {"max_output_tokens", 4},  {"seed", 1}};
  server.post("/v1/responses", ask);
  EXPECT_EQ(error_code(server.send("POST", "/v1/responses", ask.dump())), "invalid_value");
  server.post("/v1/responses", with(ask, {{"instructions", nullptr}}));  // nobody holds the conversation
  server.end();
}

TEST(ServeProgram, MessagesAndLogprobs) {
  Program server({"--api-key", kKey});
  const std::string model = json::parse(server.get("/v1/models").body)["data"][0]["id"];
  json chat = {{"model", model},
               {"messages", {{{"role", "user"}, {"content", "Who are you?"}}}},
               {"max_tokens", 30},
               {"seed", 1},
               {"logprobs", true}};
  const json answer = server.post("/v1/chat/completions", chat)["choices"][0];
  const std::string text = answer["message"]["content"];
  // Log probabilities end where the text does.
  const json cut = server.post("/v1/chat/completions", with(chat, {{"stop", text.substr(12, 4)}}))["choices"][0];
  EXPECT_EQ(cut["finish_reason"], "stop");
  std::string spelled;
  for (const json& t : cut["logprobs"]["content"]) spelled += t["token"];
  EXPECT_TRUE(std::string(cut["message"]["content"]).starts_with(spelled)) << spelled;
  chat["messages"].push_back(answer["message"]);
  chat["messages"].push_back({{"role", "user"}, {"content", "Go on."}});
  server.post("/v1/chat/completions", chat);
  chat["messages"].back()["content"] = "a<|endoftext|>b";
  EXPECT_EQ(error_code(server.send("POST", "/v1/chat/completions", chat.dump())), "control_token");
  server.end();
}

// Pages of other origins, and names that lead here by DNS.
TEST(ServeProgram, BrowsersOfOtherOriginsAreRefused) {
  Program open({});
  const std::string get = "GET /v1/states HTTP/1.1\r\nConnection: close\r\nHost: ";
  const auto status = [&](const std::string& rest) {
    TestClient c = open.connect();
    c.send(get + rest + "\r\n\r\n");
    return c.reply().status;
  };
  EXPECT_EQ(status("localhost:8080"), 200);
  EXPECT_EQ(status("127.0.0.1"), 200);
  EXPECT_EQ(status("evil.example"), 403);
  EXPECT_EQ(status("localhost\r\nOrigin: http://evil.example"), 403);
  EXPECT_EQ(status("localhost:8080\r\nOrigin: http://localhost:8080"), 200);
  open.end();
  Program cors({"--api-key", kKey, "--cors-origin", "https://app.example"});
  EXPECT_EQ(cors.get("/v1/models", kKey, "Origin: https://app.example\r\n").headers.at("access-control-allow-origin"),
            "https://app.example");
  EXPECT_EQ(cors.send("POST", "/generate", kAsk.dump()).headers.at("access-control-allow-origin"),
            "https://app.example");
  cors.end();
}

TEST(ServeProgram, ConversationsOutliveTheProgram) {
  const io::TestFolder folder;
  const Args options = {"--api-key", kKey, "--state-dir", folder.path().string()};
  const json next = with(kAsk, {{"prompt", " And then"}, {"conversation_id", "c"}});
  json first, second;
  {
    Program server(options);
    first = server.post("/generate", with(kAsk, {{"conversation_id", "c"}}));
    second = server.post("/generate", next);
    server.post("/v1/states/c/rewind", {{"turns", 1}});
    server.kill(SIGKILL);
    server.wait();
  }
  Program server(options);
  EXPECT_EQ(server.post("/generate", next)["text"], second["text"]);
  const json c = json::parse(server.get("/v1/states/c").body);
  ASSERT_EQ(c["turns"], 2);
  EXPECT_EQ(c["history"][0]["assistant"], first["text"]);
  server.end();
}

// A state file whose last logit is not a number, with the checksum that it then has.
std::string without_a_number(std::string file) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(file.data() + file.size() - 12, &nan, sizeof nan);
  const uint64_t sum = XXH3_64bits(file.data(), file.size() - 8);
  std::memcpy(file.data() + file.size() - 8, &sum, sizeof sum);
  return file;
}

TEST(ServeProgram, ForksExportsAndImports) {
  Program server({"--api-key", kKey});
  const json next = with(kAsk, {{"prompt", " And then"}});
  server.post("/generate", with(kAsk, {{"conversation_id", "a"}}));
  const json fork = server.post("/v1/states/a/fork", {{"conversation_id", "b"}});
  EXPECT_EQ(fork["turns"], 1);
  EXPECT_EQ(server.get("/v1/states/a/file?turns=99999999999999999999999").status, 400);
  EXPECT_EQ(server.get("/v1/states/a/file?turns=0&turns=1").status, 400);
  EXPECT_EQ(error_code(server.get("/v1/states/a?turns=1")), "unknown_parameter");
  EXPECT_EQ(server.get("/health?once=1").status, 200);
  const Reply file = server.get("/v1/states/a/file");
  EXPECT_EQ(file.headers.at("content-type"), "application/octet-stream");
  EXPECT_EQ(server.send("POST", "/v1/states/c", file.body, kKey, "application/octet-stream").status, 200);
  const json here = server.post("/generate", with(next, {{"conversation_id", "a"}}));
  EXPECT_EQ(server.post("/generate", with(next, {{"conversation_id", "b"}}))["text"], here["text"]);
  EXPECT_EQ(server.post("/generate", with(next, {{"conversation_id", "c"}}))["text"], here["text"]);
  EXPECT_EQ(server.send("POST", "/v1/states/d", file.body.substr(0, 500), kKey, "application/octet-stream").status,
            400);
  const Reply crafted =
      server.send("POST", "/v1/states/d", without_a_number(file.body), kKey, "application/octet-stream");
  EXPECT_EQ(crafted.status, 400);
  EXPECT_NE(crafted.body.find("not finite"), std::string::npos) << crafted.body;
  EXPECT_EQ(server.send("DELETE", "/v1/states/a", "").status, 200);
  EXPECT_EQ(server.get("/v1/states/a").status, 404);
  server.end();
}

TEST(ServeProgram, KeysAreWantedAndApart) {
  Program server({"--api-key", kKey, "--api-key", kOther});
  server.post("/generate", with(kAsk, {{"conversation_id", "mine"}}));
  EXPECT_EQ(server.get("/v1/states", "").status, 401);
  EXPECT_EQ(server.get("/v1/states", "not-a-key-of-this-server").status, 401);
  for (const std::string path : {"/v1/states/mine", "/v1/states/mine/file"})
    EXPECT_EQ(server.get(path, kOther).status, 404);
  EXPECT_EQ(server.send("POST", "/v1/states/mine/fork", "{}", kOther).status, 404);
  EXPECT_EQ(server.send("DELETE", "/v1/states/mine", "", kOther).status, 404);
  EXPECT_EQ(json::parse(server.get("/v1/states", kOther).body)["data"].size(), 0U);
  server.end();
}

TEST(ServeProgram, ErrorsSayWhatIsWrong) {
  Program server({"--api-key", kKey});
  const auto status = [&](const std::string& path, const std::string& body) {
    return server.send("POST", path, body).status;
  };
  EXPECT_EQ(error_code(server.send("POST", "/generate", R"({"prompt": "x", "temprature": 1})")), "unknown_parameter");
  EXPECT_EQ(status("/generate", "{"), 400);
  EXPECT_EQ(status("/generate", R"({"prompt": "x", "max_tokens": -1})"), 400);
  EXPECT_EQ(status("/v1/responses", with({{"model", "m"}}, {{"input", "x"}}).dump()), 404);
  EXPECT_EQ(server.send("POST", "/generate", "prompt=x", kKey, "application/x-www-form-urlencoded").status, 415);
  const Reply wrong = server.send("PUT", "/generate", "{}");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST");
  EXPECT_EQ(server.get("/nothing").status, 404);
  json forbidden = json::object();
  for (int id = 0; id < 8192; ++id) forbidden[std::to_string(id)] = -100;
  EXPECT_EQ(server.send("POST", "/generate", with(kAsk, {{"logit_bias", forbidden}}).dump()).status, 400);
  server.end();
}

TEST(ServeProgram, WhatMakesNoSenseIsRefusedAtTheStart) {
  EXPECT_EQ(krait({"serve", "--host", "0.0.0.0"}).code, 2);
  EXPECT_EQ(krait({"serve", "--api-key", "short"}).code, 2);
  EXPECT_EQ(krait({"serve", "--port", "0", "--api-key", kKey, "--api-key", kKey}).code, 2);
  EXPECT_EQ(krait({"serve", "--tls-cert", "x"}).code, 2);
  EXPECT_EQ(krait({"serve", "--state-disk", "5"}).code, 2);
  const io::TestFolder folder;
  EXPECT_EQ(krait({"serve", (folder / "nothing").string(), "--port", "0"}).code, 1);
  const fs::path file = folder.path() / "krait.toml";
  std::ofstream(file) << "slotz = 3\n";
  const Finished f = krait({"serve", "--config", file.string()});
  EXPECT_EQ(f.code, 2);
  EXPECT_NE(f.err.find("slotz"), std::string::npos);
}

}  // namespace
}  // namespace krait::test
