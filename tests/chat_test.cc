// krait run as a chat, over a pipe (-i) and on a terminal.
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class Chat : public CliTest {
 protected:
  Finished chat(const std::string& lines, const Args& more = {},
                const std::string& chat_template = kTestTemplate) const {
    return krait(Args{"run", model("mamba2", chat_template), "-i", "-n", "12", "--ignore-eos"} + more, lines);
  }
};

// Numbers N of all "read N tokens" notes.
std::vector<int64_t> tokens_read(const std::string& notes) {
  std::vector<int64_t> all;
  for (size_t at = 0; (at = notes.find("[read ", at)) != std::string::npos; ++at)
    all.push_back(std::stoll(notes.substr(at + 6)));
  return all;
}

TEST_F(Chat, TrapE4_TenTurnsReadEachTokenOnce) {
  std::string lines;
  for (int i = 0; i < 10; ++i) lines += "message " + std::to_string(i) + "\n";
  const Finished f = chat(lines, {"-v"});
  EXPECT_EQ(f.code, 0) << f.err;
  // <|user|> + 9 bytes + <|end|> + <|assistant|>; from the second turn on, the <|end|> of the answer before it.
  EXPECT_EQ(tokens_read(f.err), (std::vector<int64_t>{12, 13, 13, 13, 13, 13, 13, 13, 13, 13})) << f.err;
  EXPECT_THAT(f.err, Not(HasSubstr("went back")));
}

TEST_F(Chat, TrapE2_UndoAndRegenerateReadNothingAgain) {
  const Finished twice = chat("one\ntwo\n/undo\ntwo\n", {"-v"});
  EXPECT_EQ(tokens_read(twice.err), (std::vector<int64_t>{6, 7, 7}));
  // The random stream is undone as well: the same answer again.
  EXPECT_EQ(twice.out.substr(chat("one\ntwo\n").out.size()), chat("one\ntwo\n").out.substr(chat("one\n").out.size()));
  const Finished again = chat("one\n/regen\n", {"-v"});
  EXPECT_EQ(tokens_read(again.err), (std::vector<int64_t>{6, 0}));
  const std::string first = chat("one\n").out;
  EXPECT_NE(again.out.substr(first.size()), first);
  const Finished greedy = chat("one\n/regen\n", {"--temp", "0"});
  EXPECT_THAT(greedy.err, HasSubstr("the same"));
  EXPECT_EQ(greedy.out.substr(0, greedy.out.size() / 2), greedy.out.substr(greedy.out.size() / 2));
}

TEST_F(Chat, SavedChatsGoOn) {
  const std::string both = chat("one\ntwo\n").out, one = chat("one\n/save " + path("s") + "\n").out;
  for (const Finished& f :
       {chat("two\n", {"--load-state", path("s"), "-v"}), chat("/load " + path("s") + "\ntwo\n", {"-v"})}) {
    EXPECT_EQ(one + f.out, both) << f.err;
    EXPECT_EQ(tokens_read(f.err), (std::vector<int64_t>{7}));
  }
  EXPECT_EQ(one + chat("two\n", {"--load-state", path("s")}).out, both);
}

TEST_F(Chat, TrapE8_ATemplateThatRewritesHistoryIsReadFromThereOn) {
  // Answers before the last message are left out, as templates do with what a model has thought.
  const std::string forgetful =
      "{% for m in messages %}{% if m['role'] == 'user' or loop.last %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% "
      "endif %}"
      "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
  const Finished f = chat("one\ntwo\n", {"-v"}, forgetful);
  EXPECT_EQ(f.code, 0) << f.err;
  EXPECT_THAT(f.err, HasSubstr("went back from token 18 to 0"));
  // As if it had been read from the beginning.
  const std::string m = model("mamba2", forgetful);
  const json fresh = krait({"run", m, "--json", "-n", "12", "--ignore-eos", "--temp", "0", "-p",
                            "<|user|>one<|end|><|user|>two<|end|><|assistant|>"})
                         .parsed();
  const Finished greedy = chat("one\ntwo\n", {"--temp", "0"}, forgetful);
  EXPECT_THAT(greedy.out, HasSubstr(fresh["text"].get<std::string>()));
}

TEST_F(Chat, PlainModelsWriteOn) {
  const Finished f = chat("one\n\ntwo\n", {"-v"}, "");
  EXPECT_EQ(f.code, 0) << f.err;
  EXPECT_EQ(tokens_read(f.err), (std::vector<int64_t>{3, 0, 5}));  // "one", nothing, "\n\ntwo"
  EXPECT_THAT(chat("\n", {}, "").err, HasSubstr("no text to begin with"));
}

TEST_F(Chat, CommandsThatMakeNoSenseLeaveTheChatAsItIs) {
  const Finished f = chat("/sing\n/undo\n/regen\n/save\n/save " + path("s") + "\n/load " + path("absent") +
                          "\n/undo 3\none\n/help\n/stats\n/reset\n/undo\n/exit\nnever\n");
  EXPECT_EQ(f.code, 0);
  for (const char* said : {"there is no /sing", "no turn to undo", "no answer to write again", "/save needs a file",
                           "no state to save", "absent", "/undo takes nothing", "/regen", "1 turn(s)"}) {
    EXPECT_THAT(f.err, HasSubstr(said));
  }
  EXPECT_EQ(f.out, chat("one\n").out);
  EXPECT_EQ(chat("//one\n", {"-v"}).code, 0);
}

TEST_F(Chat, OnATerminal) {
  Terminal t({"run", model("mamba2", kTestTemplate), "-n", "-1", "--ignore-eos", "--save-state", path("s")});
  ASSERT_TRUE(t.shows(kPrompt)) << t.screen();
  t.type("hello\n");
  ASSERT_TRUE(t.shows("hello")) << t.screen();
  usleep(200'000);
  t.type("\x03");  // stops the answer, not the program
  ASSERT_TRUE(t.shows(kPrompt)) << t.screen();
  t.type("half\x03");  // throws away what was typed
  ASSERT_TRUE(t.shows("Ctrl-D")) << t.screen();
  t.type("/stats\n");
  ASSERT_TRUE(t.shows("1 turn(s)")) << t.screen();
  t.type("\x04");
  EXPECT_EQ(t.wait(), 0);
  EXPECT_TRUE(fs::exists(path("s")));
}

TEST_F(Chat, ASignalThatComesBeforeTheReadIsNotLost) {
  Terminal t({"run", model("mamba2", kTestTemplate)});
  ASSERT_TRUE(t.shows(kPrompt)) << t.screen();
  for (int i = 0; i < 200; ++i) {  // the next one while the prompt is on its way
    t.kill(SIGINT);
    ASSERT_TRUE(t.shows("Ctrl-D")) << i << "\n" << t.screen();
  }
  t.kill(SIGTERM);
  EXPECT_EQ(t.wait(), 128 + SIGTERM);
}

TEST_F(Chat, TerminatedInAnAnswerItSavesAndLeaves) {
  Terminal t({"run", model("mamba2", kTestTemplate), "-n", "-1", "--ignore-eos", "--save-state", path("s")});
  ASSERT_TRUE(t.shows(kPrompt)) << t.screen();
  t.type("hello\n");
  ASSERT_TRUE(t.shows("hello\r\n")) << t.screen();
  ASSERT_TRUE(t.shows_more()) << t.screen();
  t.kill(SIGTERM);
  EXPECT_EQ(t.wait(), 128 + SIGTERM);
  EXPECT_TRUE(fs::exists(path("s")));
}

}  // namespace
}  // namespace krait::test
