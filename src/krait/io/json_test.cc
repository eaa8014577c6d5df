#include "krait/io/json.h"

#include <gmock/gmock.h>

#include <cmath>

#include "krait/io/test_folder.h"

namespace krait::io {
namespace {

using ::testing::HasSubstr;

Json parse(std::string_view text) { return Json::parse(text, "test.json"); }
std::string why(std::string_view text) {
  return bad_data([&] { parse(text); });
}

TEST(Json, ReadsEveryType) {
  const Json j = parse(R"( {"b": 1, "a": [true, false, null, -2.5, "x\u00e9\n\ud83d\ude00"], "c": {}, "d": []} )");
  ASSERT_EQ(j.items().size(), 4u);
  EXPECT_EQ(j.items()[0].first, "b");  // order kept
  EXPECT_EQ(j.items()[1].first, "a");
  EXPECT_EQ(j.at("b").as_integer(), 1);
  EXPECT_EQ(j.at("b").as_double(), 1.0);
  EXPECT_TRUE(j.at("a").at(0).as_bool());
  EXPECT_FALSE(j.at("a").at(1).as_bool());
  EXPECT_TRUE(j.at("a").at(2).is_null());
  EXPECT_EQ(j.at("a").at(3).as_double(), -2.5);
  EXPECT_EQ(j.at("a").at(4).as_string(), "x\xC3\xA9\n\xF0\x9F\x98\x80");
  EXPECT_EQ(j.at("c").size(), 0u);
  EXPECT_TRUE(j.at("c").is_object());
  EXPECT_TRUE(j.at("d").is_array());
  EXPECT_EQ(j.find("e"), nullptr);
  EXPECT_EQ(j.at("a").find("e"), nullptr);
}

TEST(Json, ScalarDocuments) {
  EXPECT_EQ(parse("7").as_integer(), 7);
  EXPECT_EQ(parse("\"s\"").as_string(), "s");
  EXPECT_TRUE(parse("null").is_null());
  EXPECT_TRUE(std::isinf(parse("Infinity").as_double()));
}

TEST(Json, BareInfinityAndNaNAreNumbers) {
  const Json j = parse(R"({"limit":[0.0,Infinity], "NaN": NaN, "s": "Infinity", "n":-Infinity , "q": "a\"NaN\\"})");
  EXPECT_TRUE(j.at("limit").at(1).is_number());
  EXPECT_EQ(j.at("limit").at(1).as_double(), HUGE_VAL);
  EXPECT_TRUE(std::isnan(j.at("NaN").as_double()));
  EXPECT_EQ(j.at("s").as_string(), "Infinity");
  EXPECT_EQ(j.at("n").as_double(), -HUGE_VAL);
  EXPECT_EQ(j.at("q").as_string(), "a\"NaN\\");
  EXPECT_EQ(parse(R"(["", Infinity, ""])").at(2).as_string(), "");
  EXPECT_THAT(why("{Infinity: 1}"), HasSubstr("where a key should"));
  for (const char* text : {"[Infinity1]", "[-NaN]", "[--Infinity]", "[infinity]", "[Infinity NaN]", "[1Infinity]"}) {
    why(text);
  }
}

TEST(Json, FloatObjectOfTransformers5) {
  const Json j =
      parse(R"({"a": {"__float__": "Infinity"}, "b": {"__float__": "x"}, "c": {"__float__": "NaN", "d": 1}})");
  EXPECT_EQ(j.at("a").as_double(), HUGE_VAL);
  EXPECT_EQ(j.number_or("a", 0), HUGE_VAL);
  EXPECT_THAT(bad_data([&] { j.at("b").as_double(); }), HasSubstr("expected a number, found {\"__float__\": \"x\"}"));
  bad_data([&] { j.at("c").as_double(); });
}

TEST(Json, IntegersAreExactOrDoubles) {
  EXPECT_EQ(parse("9223372036854775807").as_integer(), INT64_MAX);
  EXPECT_EQ(parse("-9223372036854775808").as_integer(), INT64_MIN);
  EXPECT_EQ(parse("[2.0]").at(0).as_integer(), 2);
  EXPECT_EQ(parse("1e3").as_integer(), 1000);
  EXPECT_EQ(parse("1000000000000000019884624838656").as_double(), 1e30);
  EXPECT_EQ(parse("-1000000000000000019884624838656").as_double(), -1e30);
  EXPECT_EQ(parse("9223372036854775808").as_double(), 0x1p63);
  for (const char* text :
       {"9223372036854775808", "1000000000000000019884624838656", "2.5", "1e300", "Infinity", "NaN"}) {
    bad_data([&] { parse(text).as_integer(); });
  }
  why("0123456789012345678901234567890");
  why("1e999");
}

TEST(Json, RefusesDuplicateKeys) {
  EXPECT_THAT(why(R"({"a": {"x": 1, "y": 2, "x": 3}})"), HasSubstr("test.json: key \"x\" occurs twice"));
  EXPECT_THAT(why(R"({"a": 1, "\u0061": 2})"), HasSubstr("\"a\" occurs twice"));
}

TEST(Json, RefusesDeepNesting) {
  const auto nested = [](size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_NO_THROW(parse(nested(100)));
  EXPECT_THAT(why(nested(200)), HasSubstr("nested deeper than"));
  why(std::string(5'000'000, '['));
  why(std::string(5'000'000, '{'));
}

TEST(Json, RefusesMalformedText) {
  for (const char* text :
       {"",      " ",    "{",     "}",    "[1,]",       "{\"a\":1,}", "{\"a\"}",    "[1 2]", "{\"a\":1} x",
        "tru",   "[01]", "\"abc", "\"\\", "[\"\x01\"]", "[\"\\q\"]",  "[\"\xff\"]", "{1:2}", "//x",
        "['a']", "[+1]", "[.5]",  "nul"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT(why(text), ::testing::StartsWith("[json] test.json: "));
  }
  EXPECT_THAT(why("\"abc"), HasSubstr("not closed"));
  EXPECT_THAT(why("[\"\xff\"]"), HasSubstr("UTF-8"));
  why(std::string_view("{\"a\":1}\0", 8));
}

TEST(Json, EveryTruncationIsRefused) {
  const std::string text = R"({"a": [1, Infinity, "x\"y"], "b": {"c": -1.5e3, "d": 12345678901234567890}})";
  for (size_t n = 0; n < text.size(); ++n) EXPECT_THROW(parse(text.substr(0, n)), Error) << n;
  EXPECT_NO_THROW(parse(text));
}

TEST(Json, AccessorsSayWhatTheyFound) {
  const Json j = parse(R"({"n": "seven", "s": 7, "a": [1], "z": null})");
  EXPECT_THAT(bad_data([&] { j.at("n").as_integer(); }), HasSubstr("expected an integer of 64 bits, found \"seven\""));
  EXPECT_THAT(bad_data([&] { j.integer_or("n", 1); }),
              HasSubstr("\"n\": expected an integer of 64 bits, found \"seven\""));
  EXPECT_THAT(bad_data([&] { j.string_or("s", ""); }), HasSubstr("\"s\": expected a string, found 7"));
  EXPECT_THAT(bad_data([&] { j.boolean_or("s", true); }), HasSubstr("true or false"));
  EXPECT_THAT(bad_data([&] { j.number_or("a", 1); }), HasSubstr("found an array of 1"));
  EXPECT_THAT(bad_data([&] { j.at("a").items(); }), HasSubstr("expected an object"));
  EXPECT_THAT(bad_data([&] { j.at("missing"); }), HasSubstr("\"missing\" is missing"));
  EXPECT_THAT(bad_data([&] { j.at("a").at(1); }), HasSubstr("element 1 of an array of 1"));
  EXPECT_EQ(j.integer_or("z", 5), 5);  // null counts as absent
  EXPECT_EQ(j.integer_or("y", 6), 6);
  EXPECT_EQ(j.string_or("y", "d"), "d");
  EXPECT_TRUE(j.boolean_or("y", true));
}

TEST(Json, DumpReadsBackTheSame) {
  const std::string text = R"({"a": [1, 2.0, -0.0, 1e-05, 0.1, 1e+300, true, null],)"
                           R"( "b": {}, "c": [], "s": "é\"\\\n\u0001", "i": {"__float__": "-Infinity"}})";
  const Json j = parse(text);
  const std::string one = j.dump(), many = j.dump(2);
  EXPECT_EQ(parse(one).dump(), one);
  EXPECT_EQ(parse(many).dump(), one);
  EXPECT_EQ(one.find('\n'), std::string::npos);
  EXPECT_THAT(many, HasSubstr("{\n  \"a\": [\n    1,\n    2.0,\n"));
  EXPECT_THAT(many, HasSubstr("\"b\": {},"));
  EXPECT_TRUE(std::signbit(parse(one).at("a").at(2).as_double()));
  EXPECT_THAT(one, HasSubstr("2.0"));  // stays a double
  EXPECT_EQ(Json(HUGE_VAL).dump(), R"({"__float__": "Infinity"})");
  EXPECT_EQ(Json(std::string("a\xff\xc3")).dump(), "\"a\xEF\xBF\xBD\xEF\xBF\xBD\"");
  EXPECT_EQ(Json(std::string("\xED\xA0\x80 \xC0\x80 \xF4\x90\x80\x80")).dump().find_first_of("\xED\xC0\xF4"),
            std::string::npos);
}

TEST(Json, QuotedNamesAreHarmlessOnATerminal) {
  EXPECT_EQ(quote_name("a\x1b[2J\"\xff"), "\"a\\u001b[2J\\\"\xEF\xBF\xBD\"");
  EXPECT_EQ(quote_name(std::string(199, 'x') + "é tail"), "\"" + std::string(199, 'x') + "…\"");
}

TEST(Json, Build) {
  Json j = Json::object();
  j.set("a", Json(int64_t{1}));
  j.set("b", Json("x"));
  j.set("a", Json(int64_t{2}));
  EXPECT_EQ(j.dump(), R"({"a": 2, "b": "x"})");
  EXPECT_THROW(j.push(Json()), Error);
  EXPECT_THROW(Json::array().set("a", Json()), Error);
}

}  // namespace
}  // namespace krait::io
