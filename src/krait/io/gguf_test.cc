#include "krait/io/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "krait/core/error.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

template <class... T>
std::string le(T... v) {
  std::string s;
  (s.append(reinterpret_cast<const char*>(&v), sizeof v), ...);
  return s;
}
std::string str(const std::string& s) { return le(uint64_t{s.size()}) + s; }
std::string pair(const std::string& key, uint32_t type, const std::string& value) {
  return str(key) + le(type) + value;
}
std::string info(const std::string& name, const std::vector<uint64_t>& ne, uint32_t type, uint64_t offset) {
  std::string s = str(name) + le(static_cast<uint32_t>(ne.size()));
  for (const uint64_t d : ne) s += le(d);
  return s + le(type, offset);
}
std::string join(const std::vector<std::string>& parts) {
  std::string s;
  for (const std::string& p : parts) s += p;
  return s;
}

class GgufFile : public testing::Test {
 protected:
  GgufFile() : path_(fs::path(testing::TempDir()) / ("gguf_" + std::to_string(::getpid()) + ".gguf")) {}
  ~GgufFile() override { fs::remove(path_); }

  std::shared_ptr<const Gguf> open(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return Gguf::open(path_);
  }
  static std::string file(const std::vector<std::string>& pairs, const std::vector<std::string>& infos,
                          size_t data_bytes, uint32_t version = 3, size_t alignment = 32) {
    std::string s = "GGUF" + le(version, uint64_t{infos.size()}, uint64_t{pairs.size()}) + join(pairs) + join(infos);
    s.resize((s.size() + alignment - 1) / alignment * alignment);
    return s + std::string(data_bytes, '\x01');
  }
  std::string refusal(const std::string& bytes) {
    try {
      open(bytes);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadData);
      return e.what();
    }
    return "accepted";
  }
  std::string bytes_of_file() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  fs::path path_;
};

TEST_F(GgufFile, ReadsEveryValueType) {
  const auto g =
      open(file({pair("u8", 0, le(uint8_t{200})), pair("i8", 1, le(int8_t{-3})), pair("u16", 2, le(uint16_t{60000})),
                 pair("i16", 3, le(int16_t{-300})), pair("u32", 4, le(uint32_t{4000000000u})),
                 pair("i32", 5, le(int32_t{-70000})), pair("f32", 6, le(1e-5f)), pair("yes", 7, le(uint8_t{1})),
                 pair("text", 8, str("word")), pair("u64", 10, le(~uint64_t{0})), pair("i64", 11, le(int64_t{-5})),
                 pair("f64", 12, le(0.1)), pair("list", 9, le(uint32_t{5}, uint64_t{2}, int32_t{-1}, int32_t{7})),
                 pair("words", 9, le(uint32_t{8}, uint64_t{2}) + str("a") + str("")),
                 pair("scores", 9, le(uint32_t{6}, uint64_t{1}, 0.5f)),
                 pair("flags", 9, le(uint32_t{7}, uint64_t{2}, uint8_t{0}, uint8_t{1}))},
                {}, 0));
  EXPECT_EQ(g->integer("u8"), 200);
  EXPECT_EQ(g->integer("i8"), -3);
  EXPECT_EQ(g->integer("u16"), 60000);
  EXPECT_EQ(g->integer("i16"), -300);
  EXPECT_EQ(g->integer("u32"), 4000000000);
  EXPECT_EQ(g->integer("i32"), -70000);
  EXPECT_EQ(g->number_or("f32", 0), 1e-5);  // the decimal that was meant
  EXPECT_TRUE(g->boolean("yes"));
  EXPECT_EQ(g->str("text"), "word");
  EXPECT_EQ(std::get<uint64_t>(g->values().at("u64")), ~uint64_t{0});
  EXPECT_EQ(g->integer("i64"), -5);
  EXPECT_EQ(g->number_or("f64", 0), 0.1);
  EXPECT_EQ(g->number_or("i64", 0), -5.0);
  EXPECT_EQ(g->integers32("list"), (std::vector<int32_t>{-1, 7}));
  EXPECT_EQ(g->strings("words"), (std::vector<std::string>{"a", ""}));
  EXPECT_EQ(g->floats("scores"), (std::vector<float>{0.5f}));
  EXPECT_EQ(std::get<std::vector<bool>>(g->values().at("flags")), (std::vector<bool>{false, true}));
  EXPECT_EQ(g->str_or("absent", "x"), "x");
  EXPECT_THROW(g->integer("absent"), Error);
  EXPECT_THROW(g->integer("text"), Error);
  EXPECT_THROW(g->integer("u64"), Error);
}

TEST_F(GgufFile, ReadsTensorsInReversedOrder) {
  for (const uint32_t version : {2u, 3u}) {
    const auto g = open(file({}, {info("a", {3, 2}, 0, 0), info("b", {4}, 30, 32)}, 40, version));
    EXPECT_EQ(g->tensors().at("a").shape(), Shape({2, 3}));
    EXPECT_EQ(g->tensors().at("b").dtype(), DType::kBF16);
    EXPECT_EQ(g->tensors().at("b").bytes() - g->tensors().at("a").bytes(), 32);
  }
  const auto g = open(file({pair("general.alignment", 4, le(uint32_t{64}))}, {info("a", {1}, 0, 64)}, 68, 3, 64));
  EXPECT_EQ(g->tensors().at("a").numel(), 1);
}

TEST_F(GgufFile, EveryProblemOfTheHeaderIsListed) {
  const std::string why = refusal(file({pair("flag", 7, le(uint8_t{2})), pair("twice", 4, le(uint32_t{1})),
                                        pair("twice", 4, le(uint32_t{1})), pair("split.count", 4, le(uint32_t{3}))},
                                       {info("a", {3}, 99, 0), info("b", {3}, 0, 5)}, 40));
  for (const char* part :
       {"5 problems", "bool flag holds 2", "key twice stands twice", "one of 3 parts", "a is", "b begins"})
    EXPECT_THAT(why, HasSubstr(part));
  // What comes before the place where nothing more can be read, too.
  const std::string cut = refusal("GGUF" + le(uint32_t{3}, uint64_t{0}, uint64_t{2}) + pair("flag", 7, le(uint8_t{2})) +
                                  pair("x", 77, le(uint64_t{0})));
  for (const char* part : {"2 problems", "bool flag holds 2", "x has the unknown value type 77"})
    EXPECT_THAT(cut, HasSubstr(part));
}

// Trap C15: counts, lengths, types and offsets that lie.
TEST_F(GgufFile, TrapC15_HostileHeaders) {
  const auto header = [](uint64_t tensors, uint64_t keys) { return "GGUF" + le(uint32_t{3}, tensors, keys); };
  const std::string room(64, '\0');
  EXPECT_THAT(refusal("GG"), HasSubstr("truncated"));
  EXPECT_THAT(refusal("GGML" + room), HasSubstr("does not begin with GGUF"));
  EXPECT_THAT(refusal("GGUF" + le(uint32_t{1}) + room), HasSubstr("version 1"));
  EXPECT_THAT(refusal("GGUF" + le(uint32_t{4}) + room), HasSubstr("version 4"));
  EXPECT_THAT(refusal("GGUF" + le(uint32_t{3u << 24}) + room), HasSubstr("big-endian"));
  EXPECT_THAT(refusal(header(~uint64_t{0}, 0) + room), HasSubstr("more than fit"));
  EXPECT_THAT(refusal(header(0, ~uint64_t{0}) + room), HasSubstr("more than fit"));
  EXPECT_THAT(refusal(header(0, 1) + le(~uint64_t{0}) + room), HasSubstr("truncated"));
  EXPECT_THAT(refusal(header(0, 1) + str("") + le(uint32_t{4}, uint32_t{1})), HasSubstr("key of 0 bytes"));
  const auto value = [&](uint32_t type, const std::string& v) {
    return refusal(header(0, 1) + pair("key", type, v) + room);
  };
  EXPECT_THAT(value(13, ""), HasSubstr("unknown value type 13"));
  EXPECT_THAT(value(7, le(uint8_t{2})), HasSubstr("bool key holds 2"));
  EXPECT_THAT(value(9, le(uint32_t{9}, uint64_t{1})), HasSubstr("elements of type 9"));
  EXPECT_THAT(value(9, le(uint32_t{77}, uint64_t{1})), HasSubstr("elements of type 77"));
  EXPECT_THAT(value(9, le(uint32_t{4}, ~uint64_t{0})), HasSubstr("elements"));
  EXPECT_THAT(value(9, le(uint32_t{10}, uint64_t{1}, ~uint64_t{0})), HasSubstr("above 2^63"));
  EXPECT_THAT(refusal(file({pair("k", 4, le(1u)), pair("k", 4, le(1u))}, {}, 0)), HasSubstr("k stands twice"));
  for (const uint32_t bad : {0u, 1u, 48u, 1u << 30}) {
    EXPECT_THAT(refusal(file({pair("general.alignment", 4, le(bad))}, {}, 0)), HasSubstr("general.alignment"));
  }
  EXPECT_THAT(refusal(file({pair("split.count", 2, le(uint16_t{3}))}, {}, 0)), HasSubstr("3 parts of a split model"));
  EXPECT_THAT(refusal(file({}, {info("a", {1, 1, 1, 1, 1}, 0, 0)}, 64)), HasSubstr("5 dimensions"));
}

TEST_F(GgufFile, ListsEveryProblemOfTheTable) {
  const std::string why =
      refusal(file({},
                   {info("q", {256}, 16, 0), info("rows", {288, 2}, 12, 0), info("few", {32, 4}, 8, 32),
                    info("huge", {1ull << 40, 1ull << 40}, 0, 0), info("none", {0}, 0, 0), info("odd", {1}, 0, 4),
                    info("far", {8}, 0, 1 << 20), info("long", {1000}, 0, 0), info(std::string(64, 'n'), {1}, 0, 0),
                    info("new", {1}, 77, 0), info("a", {9}, 0, 0), info("b", {1}, 0, 32), info("b", {1}, 0, 64)},
                   128));
  for (const char* part :
       {"q is IQ2_XXS", "rows is Q4_K with rows of 288, no multiple of its block of 256", "few ends at byte 168",
        "huge has an impossible shape {1099511627776, 1099511627776}", "none has an impossible shape",
        "odd begins at offset 4", "far ends at byte", "long ends at byte", "name of 64 bytes", "new is type 77",
        "a overlaps b", "b stands twice", "12 problems"}) {
    EXPECT_THAT(why, HasSubstr(part));
  }
}

TEST_F(GgufFile, BlocksAreReadAndWritten) {
  // Q8_0 [2, 64]: 4 blocks of 34 bytes; Q4_K [256]: one of 144.
  const std::string whole = file({}, {info("a", {64, 2}, 8, 0), info("b", {256}, 12, 160)}, 160 + 144);
  const auto g = open(whole);
  EXPECT_EQ(g->tensors().at("a").dtype(), DType::kQ8_0);
  EXPECT_EQ(g->tensors().at("a").shape(), Shape({2, 64}));
  EXPECT_EQ(g->tensors().at("a").nbytes(), 136);
  EXPECT_EQ(g->tensors().at("b").dtype(), DType::kQ4_K);
  EXPECT_THAT(refusal(whole.substr(0, whole.size() - 1)), HasSubstr("b ends at byte 304"));
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ2_K,
                           DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS}) {
    Tensor t = Tensor::zeros({3, 512}, type);
    for (int64_t i = 0; i < t.nbytes(); ++i) t.bytes()[i] = static_cast<std::byte>(i * 7);
    write_gguf(path_, {}, {{"t", t}, {"end", Tensor::zeros({1})}});
    const Tensor back = Gguf::open(path_)->tensors().at("t");
    EXPECT_EQ(back.dtype(), type);
    EXPECT_EQ(back.shape(), t.shape());
    EXPECT_EQ(std::memcmp(back.bytes(), t.bytes(), static_cast<size_t>(t.nbytes())), 0) << name_of(type);
  }
}

TEST_F(GgufFile, EveryTruncationIsRefused) {
  const std::string whole =
      file({pair("text", 8, str("word")), pair("words", 9, le(uint32_t{8}, uint64_t{2}) + str("a") + str("b"))},
           {info("a", {3, 2}, 0, 0)}, 24);
  ASSERT_EQ(refusal(whole), "accepted");
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_NE(refusal(whole.substr(0, n)), "accepted") << n;
}

TEST_F(GgufFile, WrittenFilesReadBack) {
  Tensor a = Tensor::empty({2, 3}), b = Tensor::zeros({5}, DType::kF16);
  for (int i = 0; i < 6; ++i) a.f32()[i] = static_cast<float>(i);
  const std::vector<std::pair<std::string, Gguf::Value>> values = {{"general.architecture", std::string("mamba")},
                                                                   {"size", int64_t{768}},
                                                                   {"big", int64_t{1} << 40},
                                                                   {"minus", int64_t{-1}},
                                                                   {"eps", 1e-5},
                                                                   {"fine", 0.12345678901234},
                                                                   {"yes", true},
                                                                   {"list", std::vector<int64_t>{1, -2}},
                                                                   {"wide", std::vector<int64_t>{int64_t{1} << 40}},
                                                                   {"words", std::vector<std::string>{"x", "y z"}},
                                                                   {"scores", std::vector<double>{0.5, -1}},
                                                                   {"flags", std::vector<bool>{true}},
                                                                   {"huge", ~uint64_t{0}}};
  write_gguf(path_, values, {{"b", b}, {"a", a}, {"column", a.narrow(1, 1, 1)}});
  const auto g = Gguf::open(path_);
  ASSERT_EQ(g->values().size(), values.size());
  for (const auto& [key, v] : values) EXPECT_EQ(g->values().at(key), v) << key;
  EXPECT_EQ(g->tensors().at("a").shape(), Shape({2, 3}));
  EXPECT_EQ(g->tensors().at("a").f32()[5], 5.0f);
  EXPECT_EQ(g->tensors().at("column").f32()[1], 4.0f);
  EXPECT_LT(g->tensors().at("b").bytes(), g->tensors().at("a").bytes());  // in the order given
  const std::string bytes = bytes_of_file();
  EXPECT_NE(bytes.find(str("size") + le(uint32_t{4}, uint32_t{768})), std::string::npos);  // u32, as llama.cpp wants it
  EXPECT_NE(bytes.find(str("eps") + le(uint32_t{6}, 1e-5f)), std::string::npos);
}

TEST_F(GgufFile, RefusesToWriteWhatTheFormatCannotHold) {
  const Tensor t = Tensor::zeros({1});
  const auto usage = [&](const std::vector<NamedTensor>& tensors) {
    try {
      write_gguf(path_, {}, tensors);
    } catch (const Error& e) {
      return e.code() == ErrorCode::kUsage && !fs::exists(path_);
    }
    return false;
  };
  EXPECT_TRUE(usage({{std::string(64, 'n'), t}}));
  EXPECT_TRUE(usage({{"a", t}, {"a", t}}));
  EXPECT_TRUE(usage({{"a", Tensor::zeros({1, 1, 1, 1, 1})}}));
  EXPECT_TRUE(usage({{"a", Tensor::zeros({1}, DType::kBool)}}));
  EXPECT_THROW(write_gguf(path_, {{"k", true}, {"k", false}}, {}), Error);
}

TEST_F(GgufFile, ReadsPublishedVocabularies) {
  const fs::path vocab = fs::path(KRAIT_SHARED_DIR) / "data/tokenizers/ggml-vocab-mpt.gguf";
  if (!fs::exists(vocab)) GTEST_SKIP() << "needs reference data: " << vocab;
  const auto g = Gguf::open(vocab);
  EXPECT_EQ(g->str("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(g->strings("tokenizer.ggml.merges").size(), 50009u);
}

}  // namespace
}  // namespace krait::io
