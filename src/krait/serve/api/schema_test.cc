#include "krait/serve/api/schema.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "krait/core/error.h"
#include "krait/serve/api/schemas.h"
#include "krait/serve/serve_error.h"

namespace krait::serve {
namespace {

using nlohmann::json;

// "param: code" of the fault, or "" if the value fits.
std::string fault(const json& value, const json& schema) {
  try {
    check_schema(value, schema);
  } catch (const ServeError& e) {
    EXPECT_EQ(e.status(), 400);
    return e.param().value_or("") + ": " + e.code();
  }
  return "";
}

TEST(Schema, TypesAndRanges) {
  const json schema = {{"type", {"integer", "null"}}, {"minimum", 1}, {"maximum", 5}};
  EXPECT_EQ(fault(1, schema), "");
  EXPECT_EQ(fault(5.0, schema), "");
  EXPECT_EQ(fault(nullptr, schema), "");
  EXPECT_EQ(fault(0, schema), ": invalid_value");
  EXPECT_EQ(fault(6, schema), ": invalid_value");
  EXPECT_EQ(fault(1.5, schema), ": invalid_type");
  EXPECT_EQ(fault(true, schema), ": invalid_type");
  EXPECT_EQ(fault("1", schema), ": invalid_type");
}

TEST(Schema, StringsCountCharacters) {
  const json schema = {{"type", "string"}, {"minLength", 2}, {"maxLength", 3}};
  EXPECT_EQ(fault("äö", schema), "");
  EXPECT_EQ(fault("ä", schema), ": invalid_value");
  EXPECT_EQ(fault("abcd", schema), ": invalid_value");
}

TEST(Schema, ObjectsNameTheField) {
  const json schema = {{"type", "object"},
                       {"properties", {{"a", {{"type", "array"}, {"items", {{"type", "integer"}}}}}}},
                       {"required", {"a"}},
                       {"additionalProperties", false}};
  EXPECT_EQ(fault({{"a", {1, 2}}}, schema), "");
  EXPECT_EQ(fault({{"a", {1, "x"}}}, schema), "a[1]: invalid_type");
  EXPECT_EQ(fault(json::object(), schema), "a: missing_required_parameter");
  EXPECT_EQ(fault({{"a", json::array()}, {"b", 1}}, schema), "b: unknown_parameter");
}

TEST(Schema, AlternativesNameTheNearestFault) {
  const json schema = {
      {"anyOf", json::array({{{"type", "string"}}, {{"type", "array"}, {"items", {{"type", "string"}}}}})}};
  EXPECT_EQ(fault("x", schema), "");
  EXPECT_EQ(fault({"x", "y"}, schema), "");
  EXPECT_EQ(fault({"x", 1}, schema), "[1]: invalid_type");
}

TEST(Schema, UnknownKeywordIsOurBug) { EXPECT_THROW(check_keywords({{"items", {{"minimun", 1}}}}), Error); }

TEST(Schema, Bodies) {
  EXPECT_EQ(parse_body(R"({"a": 1})")["a"], 1);
  for (const char* bad : {"", "{", "[1]", "1", "{\"a\": \"\xff\"}", "{\"a\": \"\\ud800\"}", "nul"}) {
    EXPECT_THROW(parse_body(bad), ServeError) << bad;
  }
  EXPECT_THROW(parse_body("{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}"), ServeError);
}

// Every number that is an id, and no other text, names a token of logit_bias.
TEST(Schemas, LogitBiasTakesTheVocabularysIds) {
  for (const int64_t vocab : {1, 2, 10, 11, 100, 320, 1000, 50280}) {
    ApiOptions o;
    o.models = {{"m"}};
    o.vocab = vocab;
    const RequestSchemas schemas(o);
    const auto with = [&](const std::string& id) {
      return fault({{"prompt", "x"}, {"logit_bias", {{id, 1}}}}, schemas.of("generate"));
    };
    for (const int64_t id : {int64_t{0}, vocab / 2, vocab - 1})
      EXPECT_EQ(with(std::to_string(id)), "") << id << "/" << vocab;
    for (const auto& id : {std::to_string(vocab), std::to_string(vocab * 10), std::string("-1"), std::string("00"),
                           std::string("1x"), std::string(), std::string("99999999999999999999")}) {
      EXPECT_NE(with(id), "") << id << "/" << vocab;
    }
  }
}

TEST(Schemas, InapplicableIsRefused) {
  ApiOptions o;
  o.models = {{"m"}};
  o.vocab = 300;
  const RequestSchemas schemas(o);
  const json chat = {{"model", "m"}, {"messages", {{{"role", "user"}, {"content", "x"}}}}};
  const auto with = [&](json more) {
    json body = chat;
    body.update(more);
    return fault(body, schemas.of("chat"));
  };
  EXPECT_EQ(with(json::object()), "");
  EXPECT_EQ(with({{"logprobs", true}, {"top_logprobs", 2}}), "");
  EXPECT_EQ(with({{"top_logprobs", 2}}), "top_logprobs: invalid_value");
  EXPECT_EQ(with({{"max_tokens", 1}, {"max_completion_tokens", 1}}), "max_completion_tokens: invalid_value");
  EXPECT_NE(with({{"stream_options", {{"include_usage", true}}}}), "");
  EXPECT_EQ(with({{"stream", true}, {"stream_options", {{"include_usage", true}}}}), "");
  EXPECT_NE(with({{"tools", json::array()}}), "");
  EXPECT_EQ(with({{"model", "other"}}), "") << "404, later";
  EXPECT_NE(with({{"model", nullptr}}), "");
}

TEST(Schema, ABodyHasEveryNameOnce) {
  EXPECT_EQ(parse_body(R"({"a": {"b": 1}, "b": [{"a": 1}, {"a": 2}]})").size(), 2u);
  for (const char* body : {R"({"a": 1, "b": 2, "a": 1})", R"({"c": [{"a": {"b": 1, "b": 1}}]})"}) {
    EXPECT_THROW(parse_body(body), ServeError) << body;
  }
}

TEST(Schemas, ResponsesGoOnWithOneThing) {
  ApiOptions o;
  o.models = {{"m"}};
  o.vocab = 300;
  const RequestSchemas schemas(o);
  const auto with = [&](json more) {
    json body = {{"model", "m"}, {"input", "x"}};
    body.update(more);
    return fault(body, schemas.of("response"));
  };
  EXPECT_EQ(with({{"conversation", "c"}}), "");
  EXPECT_EQ(with({{"previous_response_id", "r"}, {"conversation", nullptr}, {"store", false}}), "");
  EXPECT_EQ(with({{"previous_response_id", "r"}, {"conversation", "c"}}), "previous_response_id: invalid_value");
  EXPECT_EQ(with({{"conversation", "c"}, {"store", false}}), "store: invalid_value");
  EXPECT_EQ(with({{"conversation", "c"}, {"instructions", "i"}}), "");
  EXPECT_EQ(with({{"previous_response_id", "r"}, {"instructions", "i"}}), "instructions: invalid_value");
  EXPECT_NE(with({{"conversation", "a/b"}}), "");
}

}  // namespace
}  // namespace krait::serve
