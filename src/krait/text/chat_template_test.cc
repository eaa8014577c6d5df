#include "krait/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "krait/core/error.h"
#include "krait/text/factories.h"

namespace krait::text {
namespace {

using testing::HasSubstr;

const std::vector<Message> kTalk = {
    {"system", "Be nice."}, {"user", " Hi \"you\"\n"}, {"assistant", "Yes."}, {"user", "Bye"}};

std::string run(const std::string& source, const std::vector<Message>& messages = kTalk, bool prompt = false) {
  return compile_chat_template(source, "<s>", "</s>")->render(messages, prompt);
}

std::string error_of(const std::string& source, const std::vector<Message>& messages = kTalk) {
  try {
    run(source, messages);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadData);
    return e.what();
  }
  return "no error";
}

// Every right side was printed by jinja2 3.1 with the settings of transformers.
TEST(ChatTemplate, ExpressionsAsJinja) {
  const std::pair<const char*, const char*> cases[] = {
      {"-7 // 2 ~ ' ' ~ -7 % 3 ~ ' ' ~ 7 / 2", "-4 2 3.5"},
      {"[1, 'a', none, true, 2.5, (1,), {'k': 'v'}]", "[1, 'a', None, True, 2.5, (1,), {'k': 'v'}]"},
      {"messages[0] | tojson", R"({"role": "system", "content": "Be nice."})"},
      {"[1, {'x': none}] | tojson(indent=2)", "[\n  1,\n  {\n    \"x\": null\n  }\n]"},
      {"messages[::-1] | map(attribute='role') | join(',')", "user,assistant,user,system"},
      {"messages | selectattr('role', 'equalto', 'user') | list | length", "2"},
      {"'hello'[1:3] ~ 'hello'[-1] ~ 'hello'[::-1] ~ 'hello'[10:]", "eloolleh"},
      {"'h\xC3\xA9\xC3\x9F'.upper() ~ 'aBC'.capitalize()", "H\xC3\x89SSAbc"},
      {"'a b  c '.split(none, 1) ~ 'a,,b'.split(',') ~ 'a b c'.rsplit(' ', 1)",
       "['a', 'b  c ']['a', '', 'b']['a b', 'c']"},
      {"'x</think>y'.split('</think>')[-1]", "y"},
      {"foo is defined ~ (foo | default('d')) ~ ('' | default('e', true)) ~ (foo | length)", "Falsede0"},
      {"1 if foo else 2", "2"},
      {"{'a': {'b': [1, 2]}}.a.b[1] ~ {'items': 3}['items'] ~ {'a': 1}.get('z', 'q')", "23q"},
      {"range(5, 0, -2) | list", "[5, 3, 1]"},
      {"['b', 'A', 'c'] | sort ~ ([1, 1, 2] | unique | list)", "['A', 'b', 'c'][1, 2]"},
      {"'a\nb' | indent(2) ~ ('  t ' | trim) ~ ('42' | int + 1)", "a\n  bt43"},
      {"\"it's\" ~ '\\x41\\u00e9\\q'", "it'sA\xC3\xA9\\q"},
      {"none ~ true ~ 1.0 ~ 100000000000000000.0", "NoneTrue1.01e+17"},
      {"'a' 'b' ~ 'ab' * 2 ~ ('x' in 'xyz') ~ (1 == 1.0)",
       "ababab"
       "TrueTrue"},
      {"'abc'.endswith(('x', 'c')) ~ 'abcabc'.rfind('b') ~ 3 is odd", "True4True"},
      {"tools is none ~ documents is defined ~ namespace(a=1).a", "TrueTrue1"},
  };
  for (const auto& [source, want] : cases) EXPECT_EQ(run("{{ " + std::string(source) + " }}"), want) << source;
}

TEST(ChatTemplate, WhitespaceAsTransformersSetsIt) {
  EXPECT_EQ(run("  {% if true %}\n  a\n  {% endif %}\nb\n"), "  a\nb");
  EXPECT_EQ(run("x\n\n  {%- if true -%}\n\n a {{- ' b ' -}}\n c{% endif %}\n\n"), "xa b c");
  EXPECT_EQ(run("  {%+ if true %}k{% endif %}\n"), "  k");
  EXPECT_EQ(run("a {# c #}\n {# d #}\nb"), "a b");
  EXPECT_EQ(run("a\r\nb\rc"), "a\nb\nc");
  EXPECT_EQ(run("{{ {'a': {'b': 1}} }}"), "{'a': {'b': 1}}");
}

TEST(ChatTemplate, StatementsAndScopes) {
  EXPECT_EQ(
      run("{% set x = 1 %}{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}"
          "{% endif %}{% set x = x + i %}{{ i }}:{{ x }};{% endfor %}{{ x }}"),
      "0:1;2:3;3:4;1");
  EXPECT_EQ(
      run("{% set ns = namespace(n=0) %}{% for m in messages if m.role == 'user' %}{% set ns.n = ns.n + loop.index %}"
          "{{ loop.first }}{{ loop.revindex0 }}{% else %}none{% endfor %}{{ ns.n }}"),
      "True1False03");
  EXPECT_EQ(run("{% for x in [] %}{% else %}none{% endfor %}"), "none");
  EXPECT_EQ(run("{% macro f(a, b='B') %}{{ a }}{{ b }}{{ y }}{% endmacro %}{% set y = 6 %}{{ f(1) }}{{ f(b=2, a=3) | "
                "upper }}"),
            "1B6326");
  EXPECT_EQ(run("{% set t %}a{{ 1 }}{% endset %}{{ t }}{% set a, b = (1, 2) %}{{ a + b }}"), "a13");
  EXPECT_EQ(run("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{{ loop.cycle('x', 'y') }}{% endfor %}"), "a1x");
  EXPECT_EQ(run("{% generation %}g{% endgeneration %}"), "g");
}

TEST(ChatTemplate, RaiseExceptionIsBadDataWithItsMessage) {
  EXPECT_THAT(error_of("{% if messages[0].role == 'system' %}\n{{ raise_exception('no system role') }}{% endif %}"),
              HasSubstr("line 2: no system role"));
}

TEST(ChatTemplate, UnknownConstructsAreRefusedByNameAndLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"\n{% include 'x' %}", "line 2: the statement 'include'"},
      {"{{ x | frobnicate }}", "the filter 'frobnicate'"},
      {"{{ x is frobnicated }}", "the test 'frobnicated'"},
      {"{% for x in y recursive %}{% endfor %}", "recursive loops"},
      {"{{ 2 ** 3 }}", "**"},
      {"{{ f(*x) }}", "arguments from a list"},
      {"{% if x %}", "'endif' is missing"},
      {"{% endif %}", "'endif' closes nothing"},
      {"{{ 'x }}", "a string is not closed"},
      {"{{ x", "a tag is not closed"},
      {"{# x", "a comment is not closed"},
      {"{{ [1, 2 }}", "closes nothing"},
      {"{{ }}", "an expression is expected"},
      {"{% break %}", "outside of a loop"},
  };
  for (const auto& [source, message] : cases) EXPECT_THAT(error_of(source), HasSubstr(message)) << source;
}

TEST(ChatTemplate, TypeErrorsNameWhatIsWrong) {
  EXPECT_THAT(error_of("{{ foo.bar }}"), HasSubstr("'foo' is undefined"));
  EXPECT_THAT(error_of("{{ 'a' + 1 }}"), HasSubstr("str + int"));
  EXPECT_THAT(error_of("{{ 1 // 0 }}"), HasSubstr("division by zero"));
  EXPECT_THAT(error_of("{{ 9223372036854775807 + 1 }}"), HasSubstr("overflows"));
  EXPECT_THAT(error_of("{{ 'x'.frob() }}"), HasSubstr("'frob' of a str"));
  EXPECT_THAT(error_of("{{ strftime_now('%Y') }}"), HasSubstr("strftime_now is not supported"));
  EXPECT_EQ(run("{{ strftime_now is defined }}"), "False");
}

TEST(ChatTemplate, RunawayTemplatesAreStopped) {
  EXPECT_THAT(error_of("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"),
              HasSubstr("too many steps"));
  EXPECT_THAT(error_of("{{ 'x' * 100000000000 }}"), HasSubstr("too many steps"));
  EXPECT_THAT(
      error_of(
          "{% set n = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(90) %}{% set n.s = n.s ~ n.s %}{% endfor %}"),
      HasSubstr("too many steps"));
  EXPECT_THAT(error_of("{% set n = namespace(l=[]) %}{% for i in range(999) %}{% set n.l = [n.l, n.l] %}{% endfor %}"),
              HasSubstr("nested deeper"));
  EXPECT_THAT(
      error_of("{% set n = namespace(l=[]) %}{% for i in range(90) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}"),
      HasSubstr("too many steps"));
  EXPECT_THAT(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), HasSubstr("nested too deep"));
  EXPECT_THAT(error_of("{{ " + std::string(100'000, '(') + std::string(100'000, ')') + " }}"),
              HasSubstr("nested too deep"));
  EXPECT_THAT(error_of("{{ 1" + std::string(100'000, '+') + "1 }}"), HasSubstr("nested too deep"));
  std::string sum = "{{ 1";
  for (int i = 0; i < 10'000; ++i) sum += " + 1";
  EXPECT_THAT(error_of(sum + " }}"), HasSubstr("nested too deep"));
  EXPECT_THAT(error_of("{% set n = namespace() %}{% set n.n = n %}"), HasSubstr("namespace inside"));
}

TEST(ChatTemplate, LongConversationsFit) {
  std::vector<Message> talk;
  for (int i = 0; i < 2000; ++i) talk.push_back({i % 2 == 0 ? "user" : "assistant", std::string(2000, 'x')});
  EXPECT_GT(named_chat_template("mistral", "<s>", "</s>")->render(talk, true).size(), 4'000'000u);
}

TEST(ChatTemplate, NamedOnes) {
  const auto named = [](const std::string& name, std::vector<Message> m = kTalk) {
    return named_chat_template(name, "<s>", "</s>")->render(m, true);
  };
  EXPECT_EQ(named("chatml", {{"user", "Hi"}}), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(
      named("llama3", {{"user", "Hi "}}),
      "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(named("mistral"), "<s>[INST] Be nice.\n\n Hi \"you\"\n [/INST] Yes.</s>[INST] Bye [/INST]");
  EXPECT_EQ(named("zephyr", {{"user", "Hi"}}), "<|user|>\nHi</s>\n<|assistant|>\n");
  EXPECT_EQ(named("falcon", {{"user", "Hi"}, {"assistant", "Yo"}}), "User: Hi\n\nAssistant: Yo\n\nAssistant:");
  EXPECT_EQ(named("gemma", {{"user", "Hi"}, {"assistant", "Yo"}}),
            "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n<start_of_turn>model\n");
  EXPECT_EQ(named("plain", {{"user", "Hi"}}), "Hi");
  EXPECT_THROW(named("mistral", {{"user", "a"}, {"user", "b"}}), Error);
  EXPECT_THROW(named("gemma"), Error);
  try {
    named("nothing");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("chatml, llama3"));
  }
}

TEST(ChatTemplate, ChosenFromTheTokenizer) {
  GgufVocab v;
  v.model = "llama";
  v.tokens = {"<unk>", "<bos>", "<eos>", "a"};
  v.scores = {0, 0, 0, -1};
  v.types = {2, 3, 3, 1};
  EXPECT_EQ(choose_chat_template(*make_gguf_spm(v)), nullptr);
  v.chat_template = "{{ bos_token }}own{{ eos_token }}";
  EXPECT_EQ(choose_chat_template(*make_gguf_spm(v))->render({}, false), "<bos>own<eos>");
  EXPECT_EQ(choose_chat_template(*make_gguf_spm(v), "plain")->render({{"user", "x"}}, false), "x");
}

TEST(ChatTemplate, FixtureRenders) {
  std::ifstream in(std::string(KRAIT_SOURCE_DIR) + "/tests/fixtures/chat.jinja");
  const std::string source(std::istreambuf_iterator<char>(in), {});
  EXPECT_EQ(run(source, kTalk, true),
            "<s>[Be nice.]\n<user>Hi \"you\"</s>\n<assistant>Yes.</s>\n<user>Bye\n<assistant>");
  EXPECT_THAT(error_of(source, {{"assistant", "Yes."}}), HasSubstr("roles must alternate"));
}

}  // namespace
}  // namespace krait::text
