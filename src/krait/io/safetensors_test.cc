#include "krait/io/safetensors.h"

#include <gmock/gmock.h>

#include <cstring>

#include "krait/io/test_folder.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string file(const std::string& header, size_t data_bytes) {
  const uint64_t n = header.size();
  std::string s(reinterpret_cast<const char*>(&n), 8);
  s += header;
  for (size_t i = 0; i < data_bytes; ++i) s += static_cast<char>(i);
  return s;
}

class Safetensors : public ::testing::Test {
 protected:
  std::map<std::string, Tensor> read(const std::string& content) {
    return read_safetensors(dir_.write("m.safetensors", content));
  }
  std::string why(const std::string& content) {
    return bad_data([&] { read(content); });
  }
  std::string why(const std::string& header, size_t data_bytes) { return why(file(header, data_bytes)); }
  TestFolder dir_;
};

TEST_F(Safetensors, EveryDtypeRoundTrips) {
  std::vector<NamedTensor> tensors;
  for (const DType d : {DType::kBool, DType::kU8, DType::kI8, DType::kI16, DType::kF16, DType::kBF16, DType::kI32,
                        DType::kF32, DType::kI64, DType::kF64}) {
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{2, 3}, Shape{2, 0}}) {
      Tensor t = Tensor::zeros(shape, d);
      for (int64_t i = 0; i < t.nbytes(); ++i) t.bytes()[i] = std::byte(i + 1);
      tensors.push_back({"t." + std::string(name_of(d)) + shape.str(), t});
    }
  }
  const fs::path p = dir_.path() / "w.safetensors";
  write_safetensors(p, tensors, {{"format", "pt"}, {"quote\"", "x"}});
  const auto back = read_safetensors(p);
  ASSERT_EQ(back.size(), tensors.size());
  for (const NamedTensor& t : tensors) {
    const Tensor& b = back.at(t.name);
    EXPECT_EQ(b.shape(), t.tensor.shape());
    EXPECT_EQ(b.dtype(), t.tensor.dtype());
    EXPECT_TRUE(b.defined());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.bytes()) % static_cast<uintptr_t>(size_of(b.dtype())), 0u);
    EXPECT_EQ(std::memcmp(b.bytes(), t.tensor.bytes(), static_cast<size_t>(b.nbytes())), 0) << t.name;
  }
  uint64_t header = 0;
  std::memcpy(&header, read_text(p).data(), 8);
  EXPECT_EQ((header + 8) % 64, 0u);
}

TEST_F(Safetensors, WritesViewsAndRefusesBadNames) {
  Tensor t = Tensor::empty({2, 2});
  for (int i = 0; i < 4; ++i) t.f32()[i] = static_cast<float>(i);
  const fs::path p = dir_.path() / "w.safetensors";
  write_safetensors(p, {{"v", t.narrow(1, 1, 1)}}, {});
  EXPECT_EQ(read_safetensors(p).at("v").f32()[1], 3.0f);
  const auto refused = [&](std::vector<NamedTensor> list) {
    return message_of(ErrorCode::kUsage, [&] { write_safetensors(p, list, {}); });
  };
  EXPECT_THAT(refused({{"a", t}, {"a", t}}), HasSubstr("\"a\""));
  EXPECT_THAT(refused({{"__metadata__", t}}), HasSubstr("reserved"));
  EXPECT_THAT(refused({{"t", t}, {"q", Tensor::zeros({256}, DType::kQ4_K)}}), HasSubstr("\"q\" is q4_k"));
}

TEST_F(Safetensors, TensorsOutliveTheReader) {
  Tensor t = read(file(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4)).at("a");
  EXPECT_EQ(t.data<uint8_t>()[3], 3);
}

TEST_F(Safetensors, UnalignedElementsAreCopied) {
  for (int shift = 0; shift < 4; ++shift) {
    const auto t =
        read(file(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})" + std::string(shift, ' '), 4)).at("a");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(t.bytes()) % 4, 0u);
    EXPECT_EQ(std::memcmp(t.bytes(), "\0\1\2\3", 4), 0);
  }
}

TEST_F(Safetensors, EmptyFilesAndTensors) {
  EXPECT_TRUE(read(file("{}", 0)).empty());
  EXPECT_TRUE(read(file(R"({"__metadata__":{"format":"pt"}})", 0)).empty());
  const auto t = read(file(R"({"e":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},
      "a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"z":{"dtype":"F64","shape":[0],"data_offsets":[2,2]}})",
                           2));
  EXPECT_EQ(t.at("e").shape(), Shape({0, 5}));
  EXPECT_EQ(t.at("z").numel(), 0);
}

TEST_F(Safetensors, HeaderLength) {
  EXPECT_THAT(why("1234567"), HasSubstr("7 bytes are too few"));
  EXPECT_THAT(why(std::string(8, '\xff') + "{}"), HasSubstr("a header of 18446744073709551615 bytes is absurd"));
  EXPECT_THAT(why(std::string("\x03\0\0\0\0\0\0\0{}", 10)),
              HasSubstr("truncated: a header of 3 bytes in a file of 10"));
  EXPECT_THAT(why("[]", 0), HasSubstr("not a JSON object"));
  EXPECT_THAT(why("{", 0), HasSubstr("m.safetensors: header: malformed"));
  EXPECT_THAT(why("", 0), HasSubstr("not a JSON object"));
}

TEST_F(Safetensors, EveryProblemInOneError) {
  const std::string m = why(R"({"dtype":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]},
      "size":{"dtype":"F32","shape":[2],"data_offsets":[0,4]},
      "negative":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]},
      "huge":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,4]},
      "wraps":{"dtype":"F64","shape":[4611686018427387904],"data_offsets":[0,0]},
      "backwards":{"dtype":"U8","shape":[4],"data_offsets":[8,4]},
      "before":{"dtype":"U8","shape":[4],"data_offsets":[-4,0]},
      "outside":{"dtype":"U8","shape":[100],"data_offsets":[4,104]},
      "no_shape":{"dtype":"U8","data_offsets":[4,104]},
      "no_object":5,
      "extra":{"dtype":"U8","shape":[1],"data_offsets":[4,5],"scale":1},
      "three":{"dtype":"U8","shape":[1],"data_offsets":[4,5,6]},
      "real":{"dtype":"U8","shape":[1.5],"data_offsets":[4,5]},
      "ranks":{"dtype":"U8","shape":[1,1,1,1,1,1,1],"data_offsets":[4,5]},
      "first":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},
      "over":{"dtype":"U8","shape":[3],"data_offsets":[2,5]},
      "__metadata__":{"n":1}})",
                            16);
  for (const char* expected :
       {"\"dtype\": dtype \"F8_E4M3\" is not supported", "\"size\": F32 of [2] does not fit the 4 bytes at [0, 4]",
        "\"negative\": dimension -1", "\"huge\": dimension", "\"wraps\": F64", "\"backwards\": data_offsets [8, 4]",
        "\"before\": data_offsets [-4, 0]", "\"outside\" ends at byte 104 of the data, the file has 16",
        "\"no_shape\": \"shape\" is missing", "\"no_object\": expected an object", "\"extra\": unknown key \"scale\"",
        "\"three\": data_offsets", "\"real\": expected an integer", "\"ranks\": 7 dimensions",
        "\"over\" overlaps \"first\" at byte 2", "\"__metadata__\": \"n\" is no string"}) {
    EXPECT_THAT(m, HasSubstr(expected));
  }
}

TEST_F(Safetensors, EveryProblemOfAnEntryInOneError) {
  const std::string m = why(R"({"a":{"dtype":"F8","shape":[-1],"data_offsets":[4],"scale":1,"zero":2},"b":{"dtype":3},
              "__metadata__":{"n":1,"o":[]}})",
                            16);
  for (const char* expected :
       {"10 problems", R"("a": unknown key "scale")", R"("a": unknown key "zero")", R"("a": dtype "F8")",
        R"("a": dimension -1)", R"("a": data_offsets are not two numbers)", R"("b": )", R"("shape" is missing)",
        R"("__metadata__": "n")", R"("__metadata__": "o")"}) {
    EXPECT_THAT(m, HasSubstr(expected));
  }
  EXPECT_THAT(why(R"({"__metadata__":5})", 0), HasSubstr("\"__metadata__\": expected an object"));
}

TEST_F(Safetensors, OverlapsHolesAndTails) {
  const auto two = [&](int a0, int a1, int b0, int b1, size_t bytes) {
    const auto e = [](int x, int y) {
      return R"({"dtype":"U8","shape":[)" + std::to_string(y - x) + R"(],"data_offsets":[)" + std::to_string(x) + "," +
             std::to_string(y) + "]}";
    };
    return file("{\"a\":" + e(a0, a1) + ",\"b\":" + e(b0, b1) + "}", bytes);
  };
  EXPECT_NO_THROW(read(two(4, 8, 0, 4, 8)));
  EXPECT_THAT(why(two(0, 8, 2, 4, 8)), HasSubstr("\"b\" overlaps \"a\" at byte 2"));
  EXPECT_THAT(why(two(0, 4, 0, 4, 4)), HasSubstr("overlaps"));
  EXPECT_THAT(why(two(0, 4, 5, 8, 8)), HasSubstr("bytes 4 to 5 of the data belong to no tensor"));
  EXPECT_THAT(why(two(0, 4, 4, 8, 9)), HasSubstr("1 bytes after the last tensor"));
  EXPECT_THAT(why(two(0, 4, 4, 8, 7)), HasSubstr("truncated?"));
}

TEST_F(Safetensors, DuplicateNames) {
  EXPECT_THAT(why(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                  2),
              HasSubstr("\"a\" occurs twice"));
}

TEST_F(Safetensors, ManyProblemsAreCutShort) {
  std::string h = "{";
  for (int i = 0; i < 1000; ++i) h += (i ? "," : "") + ("\"" + std::to_string(i)) + R"(":{"dtype":"F4"})";
  EXPECT_THAT(why(h + "}", 0), AllOf(HasSubstr("3000 problems"), HasSubstr("and 2950 more")));
}

TEST_F(Safetensors, EveryTruncationIsRefused) {
  const std::string s = file(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  for (size_t n = 0; n < s.size(); ++n) EXPECT_THROW(read(s.substr(0, n)), Error) << n;
  EXPECT_NO_THROW(read(s));
}

class SafetensorsIndex : public Safetensors {
 protected:
  void shard(const std::string& name, const std::vector<std::string>& tensors) {
    std::vector<NamedTensor> list;
    for (const auto& t : tensors) list.push_back({t, Tensor::zeros({2})});
    write_safetensors(dir_.path() / name, list, {});
  }
  std::map<std::string, Tensor> index(const std::string& weight_map) {
    return read_safetensors_index(
        dir_.write("model.safetensors.index.json", R"({"metadata":{"total_size":1},"weight_map":)" + weight_map + "}"));
  }
};

TEST_F(SafetensorsIndex, ReadsShards) {
  shard("1.safetensors", {"a", "b"});
  shard("2.safetensors", {"c"});
  EXPECT_EQ(index(R"({"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"})").size(), 3u);
}

TEST_F(SafetensorsIndex, FollowsLinksOfACache) {  // Hugging Face caches link the files of a folder to blobs elsewhere
  const TestFolder blobs;
  write_safetensors(blobs.path() / "abc", {{"a", Tensor::zeros({2})}}, {});
  fs::create_symlink(blobs.path() / "abc", dir_.path() / "1.safetensors");
  EXPECT_EQ(index(R"({"a":"1.safetensors"})").size(), 1u);
}

TEST_F(SafetensorsIndex, ShardNamesStayInTheFolder) {
  shard("1.safetensors", {"a"});
  for (const char* name :
       {"../x.safetensors", "/etc/passwd", "", "sub/../../x", "..", ".", "sub/", "./1.safetensors"}) {
    SCOPED_TRACE(name);
    EXPECT_THAT(bad_data([&] { index("{\"a\":\"" + std::string(name) + "\"}"); }),
                HasSubstr("leads out of the folder"));
  }
  EXPECT_THAT(bad_data([&] { index(R"({"a":"1.safetensors\u0000"})"); }), HasSubstr("leads out of the folder"));
}

TEST_F(SafetensorsIndex, EveryProblemInOneError) {
  shard("1.safetensors", {"a", "b", "unlisted"});
  shard("2.safetensors", {"c", "b"});
  dir_.write("3.safetensors", "short");
  const std::string m = bad_data([&] {
    index(R"({"a":"1.safetensors","b":"2.safetensors","c":"2.safetensors","lost":"1.safetensors",
              "x":"4.safetensors","y":"../z","w":"3.safetensors"})");
  });
  EXPECT_THAT(m, AllOf(HasSubstr("\"lost\" is not in 1.safetensors"),
                       HasSubstr("\"unlisted\" in 1.safetensors is not in the index"),
                       HasSubstr("\"b\" in 1.safetensors is not in the index for this file"),
                       HasSubstr("4.safetensors: No such file"), HasSubstr("3.safetensors: 5 bytes are too few"),
                       HasSubstr("\"../z\" leads out")));
  EXPECT_THAT(m, Not(HasSubstr("\"c\"")));
}

TEST_F(SafetensorsIndex, MalformedIndex) {
  EXPECT_THAT(bad_data([&] { index("[]"); }), HasSubstr("no weight_map"));
  EXPECT_THAT(bad_data([&] { index(R"({"a":1,"b":"../b","c":null})"); }),
              AllOf(HasSubstr("the shard of \"a\" is no name"), HasSubstr("\"../b\" leads out"),
                    HasSubstr("the shard of \"c\" is no name")));
  EXPECT_THAT(bad_data([&] { index(R"({"a":"1","a":"2"})"); }), HasSubstr("occurs twice"));
}

}  // namespace
}  // namespace krait::io
