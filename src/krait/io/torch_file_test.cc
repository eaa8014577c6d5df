#include "krait/io/torch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <cstring>
#include <fstream>

#include "krait/core/error.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Bytes of little-endian integers, one after the other.
template <class... T>
std::string le(T... v) {
  std::string s;
  (s.append(reinterpret_cast<const char*>(&v), sizeof v), ...);
  return s;
}

struct Member {
  std::string name, content;
  bool claim_deflated = false;
};

// An archive of stored members, their data aligned to 64 bytes by an extra field as torch does it.
std::string make_zip(const std::vector<Member>& members) {
  std::string out, directory;
  for (const Member& m : members) {
    const auto offset = static_cast<uint32_t>(out.size());
    const auto n = static_cast<uint32_t>(m.content.size());
    const auto crc = static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(m.content.data()), n));
    const uint16_t method = m.claim_deflated ? 8 : 0, zero = 0;
    const auto name = static_cast<uint16_t>(m.name.size());
    const std::string common = le(zero, method, uint32_t{0}, crc, n, n, name);
    const size_t fill = 63 - (out.size() + 30 + name + 4 + 63) % 64;
    const std::string extra = le(uint16_t{0x4246}, static_cast<uint16_t>(fill)) + std::string(fill, 'Z');
    out += le(uint32_t{0x04034b50}, uint16_t{20}) + common + le(static_cast<uint16_t>(extra.size())) + m.name + extra;
    out += m.content;
    directory += le(uint32_t{0x02014b50}, uint16_t{20}, uint16_t{20}) + common +
                 le(zero, zero, zero, zero, uint32_t{0}, offset) + m.name;
  }
  const auto n = static_cast<uint16_t>(members.size());
  const auto at = static_cast<uint32_t>(out.size());
  return out + directory +
         le(uint32_t{0x06054b50}, uint16_t{0}, uint16_t{0}, n, n, static_cast<uint32_t>(directory.size()), at,
            uint16_t{0});
}

std::string text(const std::string& s) { return "X" + le(static_cast<uint32_t>(s.size())) + s; }
std::string integer(int32_t v) { return "J" + le(v); }
std::string tuple(const std::vector<int32_t>& v) {
  std::string s = "(";
  for (const int32_t x : v) s += integer(x);
  return s + "t";
}
std::string global(const std::string& module, const std::string& name) { return "c" + module + "\n" + name + "\n"; }
std::string storage(const std::string& type, const std::string& key, int32_t size) {
  return "(" + text("storage") + type + text(key) + text("cpu") + integer(size) + "tQ";
}
const std::string kOrdered = global("collections", "OrderedDict") + ")R";

std::string tensor(const std::string& of, int32_t offset, const std::vector<int32_t>& size,
                   const std::vector<int32_t>& stride) {
  return global("torch._utils", "_rebuild_tensor_v2") + "(" + of + integer(offset) + tuple(size) + tuple(stride) +
         "\x89" + kOrdered + "tR";
}

std::string floats(int n) {
  std::string s;
  for (int i = 0; i < n; ++i) s += le(static_cast<float>(i));
  return s;
}

class TorchFile : public testing::Test {
 protected:
  TorchFile() : path_(fs::path(testing::TempDir()) / ("torch_" + std::to_string(::getpid()) + ".bin")) {}
  ~TorchFile() override { fs::remove(path_); }

  std::map<std::string, Tensor> read(const std::string& file) {
    std::ofstream(path_, std::ios::binary) << file;
    return read_torch(path_);
  }
  // A pickle around `items` (keys and values), with two storages of 12 floats.
  std::map<std::string, Tensor> read_pickle(const std::string& pickle) {
    return read(make_zip(
        {{"m/data.pkl", pickle}, {"m/byteorder", "little"}, {"m/data/0", floats(12)}, {"m/data/1", floats(12)}}));
  }
  std::map<std::string, Tensor> read_items(const std::string& items) {
    return read_pickle("\x80\x02}(" + items + "u.");
  }

  template <class F>
  std::string refusal(F&& f) {
    try {
      f();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadData);
      return e.what();
    }
    return "accepted";
  }

  fs::path path_;
};

const std::string kFloat = global("torch", "FloatStorage");

TEST_F(TorchFile, ReadsTensorsWhereTheyLie) {
  const auto t = read_items(text("a") + tensor(storage(kFloat, "0", 12), 2, {2, 3}, {3, 1}) + text("b") +
                            tensor(storage(kFloat, "1", 12), 0, {}, {}));
  ASSERT_EQ(t.size(), 2u);
  EXPECT_EQ(t.at("a").shape(), Shape({2, 3}));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(t.at("a").f32()[i], static_cast<float>(i + 2));
  EXPECT_EQ(t.at("b").rank(), 0);
}

TEST_F(TorchFile, TiedWeightsShareTheirAddress) {
  const auto t = read_items(text("a") + tensor(storage(kFloat, "0", 12), 0, {12}, {1}) + "q\x01" + text("b") + "h\x01" +
                            text("c") + tensor(storage(kFloat, "0", 12), 0, {12}, {1}));
  EXPECT_EQ(t.at("a").bytes(), t.at("b").bytes());
  EXPECT_EQ(t.at("a").bytes(), t.at("c").bytes());
}

TEST_F(TorchFile, StridedTensorsBecomeContiguousCopies) {
  const auto t = read_items(text("a") + tensor(storage(kFloat, "0", 12), 1, {3, 2, 1}, {1, 4, 2000000000}));
  ASSERT_TRUE(t.at("a").is_contiguous());
  const float want[] = {1, 5, 2, 6, 3, 7};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(t.at("a").f32()[i], want[i]) << i;
}

TEST_F(TorchFile, ReadsParametersMetadataAndTrainersDicts) {
  const std::string parameter = global("torch._utils", "_rebuild_parameter") + "(" +
                                tensor(storage(kFloat, "0", 12), 0, {3}, {1}) + "\x88" + kOrdered + "tR";
  // An OrderedDict whose attribute _metadata is set, below "state_dict", beside other things.
  const std::string inner = kOrdered + "(" + text("w") + parameter + "u" + "}(" + text("_metadata") + kOrdered + "ub";
  const auto t = read_items(text("epoch") + integer(3) + text("lr") + "G" + std::string(8, '\0') + text("betas") +
                            "](K\x01Ne" + text("state_dict") + inner);
  EXPECT_EQ(t.at("w").shape(), Shape({3}));
}

TEST_F(TorchFile, ReadsProtocol4AndUntypedStorages) {
  const auto short_text = [](const std::string& s) { return "\x8c" + std::string(1, static_cast<char>(s.size())) + s; };
  const auto stack_global = [&](const std::string& m, const std::string& n) {
    return short_text(m) + short_text(n) + "\x93\x94";
  };
  const std::string v3 = stack_global("torch._utils", "_rebuild_tensor_v3") + "(" +
                         storage(stack_global("torch.storage", "UntypedStorage"), "0", 48) + "K\x04" + tuple({2}) +
                         tuple({1}) + "\x89" + kOrdered + stack_global("torch", "int32") + "tR";
  const auto t = read_pickle("\x80\x04\x95" + std::string(8, '\0') + "}\x94" + short_text("a") + v3 + "s.");
  EXPECT_EQ(t.at("a").dtype(), DType::kI32);
  const float four = 4;
  EXPECT_EQ(std::memcmp(t.at("a").bytes(), &four, 4), 0);
}

TEST_F(TorchFile, EveryStorageType) {
  const std::vector<std::pair<const char*, DType>> all = {
      {"FloatStorage", DType::kF32},     {"DoubleStorage", DType::kF64}, {"HalfStorage", DType::kF16},
      {"BFloat16Storage", DType::kBF16}, {"LongStorage", DType::kI64},   {"IntStorage", DType::kI32},
      {"ShortStorage", DType::kI16},     {"CharStorage", DType::kI8},    {"ByteStorage", DType::kU8},
      {"BoolStorage", DType::kBool}};
  for (const auto& [name, dtype] : all) {
    EXPECT_EQ(read_items(text("a") + tensor(storage(global("torch", name), "0", 6), 0, {6}, {1})).at("a").dtype(),
              dtype);
  }
}

// Trap C15: pickles never execute; whatever is not a state dict is refused by its name.
TEST_F(TorchFile, TrapC15_HostilePickles) {
  const auto why = [&](const std::string& pickle) { return refusal([&] { read_pickle(pickle); }); };
  EXPECT_THAT(why("\x80\x02" + global("os", "system") + "(" + text("true") + "tR."), HasSubstr("'os.system'"));
  EXPECT_THAT(why("\x80\x02" + global("builtins", "eval") + "."), HasSubstr("'builtins.eval'"));
  EXPECT_THAT(why("\x80\x04" + text("posix") + text("system") + "\x93."), HasSubstr("'posix.system'"));
  EXPECT_THAT(why("\x80\x02(" + text("x") + "itorch\nTensor\n."), HasSubstr("opcode 0x69"));  // INST
  EXPECT_THAT(why("\x80\x02\x81."), HasSubstr("opcode 0x81"));                                // NEWOBJ
  EXPECT_THAT(why(std::string("\x80\x05") + "}."), HasSubstr("protocol 5"));
  EXPECT_THAT(why("\x80\x02h\x07."), HasSubstr("memo 7"));
  EXPECT_THAT(why("\x80\x02t."), HasSubstr("no mark"));
  EXPECT_THAT(why("\x80\x02."), HasSubstr("too few values"));
  EXPECT_THAT(why("\x80\x02}(s."), HasSubstr("too few values"));
  EXPECT_THAT(why("\x80\x02}]."), HasSubstr("left over"));
  EXPECT_THAT(why("\x80\x02}"), HasSubstr("truncated"));
  EXPECT_THAT(why("\x80\x02X\xff\xff\xff\x7f"), HasSubstr("truncated"));
  EXPECT_THAT(why("\x80\x02K\x01."), HasSubstr("no dict"));
  EXPECT_THAT(why("\x80\x02}q\x01h\x01s."), HasSubstr("too few"));
  EXPECT_THAT(why("\x80\x02}" + text("a") + "K\x01s."), HasSubstr("holds no tensors"));
}

TEST_F(TorchFile, RefusesTensorsOutsideTheirStorage) {
  const auto why = [&](const std::string& value) { return refusal([&] { read_items(text("a") + value); }); };
  EXPECT_THAT(why(tensor(storage(kFloat, "0", 12), 0, {13}, {1})), HasSubstr("leaves its storage"));
  EXPECT_THAT(why(tensor(storage(kFloat, "0", 12), 11, {2}, {1})), HasSubstr("leaves its storage"));
  EXPECT_THAT(why(tensor(storage(kFloat, "0", 12), -1, {2}, {1})), HasSubstr("leaves its storage"));
  EXPECT_THAT(why(tensor(storage(kFloat, "0", 12), 0, {2, 2}, {2000000000, 2000000000})),
              HasSubstr("leaves its storage"));
  EXPECT_THAT(why(tensor(storage(kFloat, "0", 12), 0, {2}, {-1})), HasSubstr("negative"));
  EXPECT_THAT(why(tensor(storage(kFloat, "0", 12), 0, {2000000000, 2000000000}, {0, 0})), HasSubstr("expanded"));
  EXPECT_THAT(why(tensor(storage(kFloat, "0", 12), 0, {2}, {1, 1})), HasSubstr("dimensions"));
  EXPECT_THAT(why(tensor(storage(kFloat, "0", 99), 0, {2}, {1})), HasSubstr("which holds 12"));
  EXPECT_THAT(why(tensor(storage(kFloat, "7", 12), 0, {2}, {1})), HasSubstr("archive lacks"));
  EXPECT_THAT(why(tensor(integer(1), 0, {2}, {1})), HasSubstr("no storage"));
}

TEST_F(TorchFile, ListsEveryProblem) {
  const std::string items = text("a") + tensor(storage(kFloat, "7", 12), 0, {2}, {1}) + text("b") +
                            tensor(storage(kFloat, "0", 12), 0, {13}, {1}) + text("c") +
                            tensor(storage(kFloat, "0", 12), 0, {1}, {1}) + text("c") +
                            tensor(storage(kFloat, "0", 12), 0, {1}, {1}) + text("d") + integer(1);
  const std::string why = refusal([&] { read_items(items); });
  for (const char* part : {"4 problems", "a lies in storage 7", "b [13]", "c stands twice", "d is no tensor"}) {
    EXPECT_THAT(why, HasSubstr(part));
  }
}

TEST_F(TorchFile, RefusesOtherArchives) {
  const std::string empty = "\x80\x02}.";
  EXPECT_TRUE(read(make_zip({{"data.pkl", empty}})).empty());
  EXPECT_THAT(refusal([&] { read(make_zip({{"m/other", "x"}})); }), HasSubstr("without data.pkl"));
  EXPECT_THAT(refusal([&] { read(make_zip({{"m/data.pkl", empty}, {"n/data.pkl", empty}})); }),
              HasSubstr("holds both"));
  EXPECT_THAT(refusal([&] { read(make_zip({{"m/data.pkl", empty}, {"m/byteorder", "big"}})); }),
              HasSubstr("byte order is 'big'"));
  EXPECT_THAT(refusal([&] { read("\x80\x02\x8a\nl\xfc\x9c\x46\xf9 jP\xa8P\x19."); }),
              HasSubstr("torch.save(torch.load("));
  EXPECT_THAT(refusal([&] { read("hello"); }), HasSubstr("no zip archive"));
  EXPECT_THAT(refusal([&] { read(""); }), HasSubstr("no zip archive"));
  const std::string pickle = "\x80\x02}(" + text("a") + tensor(storage(kFloat, "0", 12), 0, {2}, {1}) + "u.";
  EXPECT_THAT(refusal([&] { read(make_zip({{"m/data.pkl", pickle}, {"m/data/0", floats(12), true}})); }),
              HasSubstr("compressed"));
}

TEST_F(TorchFile, EveryTruncationIsRefused) {
  const std::string whole =
      make_zip({{"m/data.pkl", "\x80\x02}(" + text("a") + tensor(storage(kFloat, "0", 12), 0, {2}, {1}) + "u."},
                {"m/data/0", floats(12)}});
  for (size_t n = 0; n < whole.size(); n += 7) {
    EXPECT_NE(refusal([&] { read(whole.substr(0, n)); }), "accepted") << n;
  }
}

TEST_F(TorchFile, ReadsPublishedForm) {
  const fs::path model = fs::path(KRAIT_SHARED_DIR) / "data/models/mamba2-books-12m/pytorch_model.bin";
  if (!fs::exists(model)) GTEST_SKIP() << "needs reference data: " << model;
  const auto t = read_torch(model);
  EXPECT_EQ(t.at("backbone.embedding.weight").dtype(), DType::kBF16);
  EXPECT_EQ(t.at("backbone.embedding.weight").dim(0), 8192);
  EXPECT_EQ(t.at("backbone.embedding.weight").bytes(), t.at("lm_head.weight").bytes());  // tied
  EXPECT_EQ(t.at("backbone.layers.13.mixer.A_log").dtype(), DType::kF32);
}

}  // namespace
}  // namespace krait::io
