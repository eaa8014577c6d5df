#include "krait/io/npy.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "krait/io/test_folder.h"
#include "krait/io/test_zip.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// A version 1 file with that header text (padded) and data.
std::string npy(std::string header, const std::string& data, char version = 1) {
  header.resize((10 + header.size() + 64) / 64 * 64 - 10, ' ');
  header.back() = '\n';
  std::string s("\x93NUMPY", 6);
  s += version;
  s += '\0';
  s += static_cast<char>(header.size() & 0xFF);
  s += static_cast<char>(header.size() >> 8);
  if (version > 1) s += std::string(2, '\0');
  return s + header + data;
}
std::string with(const std::string& descr, const std::string& shape, const std::string& data) {
  return npy("{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }", data);
}

class Npy : public ::testing::Test {
 protected:
  Tensor read(const std::string& content) { return read_npy(dir_.write("a.npy", content)); }
  std::string why(const std::string& content) {
    return bad_data([&] { read(content); });
  }
  TestFolder dir_;
};

TEST_F(Npy, EveryDtypeRoundTrips) {
  for (const DType d : {DType::kF32, DType::kF64, DType::kF16, DType::kI8, DType::kU8, DType::kBool, DType::kI16,
                        DType::kI32, DType::kI64}) {
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{2, 3}, Shape{0}, Shape{2, 0, 3}, Shape{1, 2, 1, 2, 1, 2}}) {
      Tensor t = Tensor::zeros(shape, d);
      for (int64_t i = 0; i < t.nbytes(); ++i) t.bytes()[i] = std::byte(i * 37 % 2);
      write_npy(dir_.path() / "t.npy", t);
      const Tensor u = read_npy(dir_.path() / "t.npy");
      EXPECT_EQ(u.shape(), shape) << name_of(d);
      EXPECT_EQ(u.dtype(), d);
      EXPECT_EQ(std::memcmp(u.bytes(), t.bytes(), static_cast<size_t>(t.nbytes())), 0);
    }
  }
}

TEST_F(Npy, WritesWhatNumPyWrites) {
  Tensor t = Tensor::zeros({2, 3});
  write_npy(dir_.path() / "t.npy", t);
  EXPECT_EQ(read_text(dir_.path() / "t.npy"), with("<f4", "(2, 3)", std::string(24, '\0')));
  write_npy(dir_.path() / "t.npy", Tensor::zeros({3}, DType::kU8));
  EXPECT_EQ(read_text(dir_.path() / "t.npy"), with("|u1", "(3,)", std::string(3, '\0')));
  write_npy(dir_.path() / "t.npy", Tensor::zeros({}, DType::kI64));
  EXPECT_EQ(read_text(dir_.path() / "t.npy"), with("<i8", "()", std::string(8, '\0')));
}

TEST_F(Npy, WritesViewsInOrder) {
  Tensor t = Tensor::empty({2, 3});
  for (int i = 0; i < 6; ++i) t.f32()[i] = static_cast<float>(i);
  write_npy(dir_.path() / "t.npy", t.narrow(1, 1, 2));
  const Tensor u = read_npy(dir_.path() / "t.npy");
  EXPECT_EQ(std::vector<float>(u.f32(), u.f32() + 4), (std::vector<float>{1, 2, 4, 5}));
  EXPECT_EQ(message_of(ErrorCode::kUsage, [&] { write_npy(dir_.path() / "b", Tensor::zeros({1}, DType::kBF16)); }),
            "[npy] bf16 has no NumPy type");
}

TEST_F(Npy, OtherSpellingsOfTheHeader) {
  const std::string data(8, '\0');
  EXPECT_EQ(read(npy("{\"shape\":(2,),'descr':'<f4','fortran_order':False}", data)).shape(), Shape({2}));
  EXPECT_EQ(read(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2,), }", data)).shape(), Shape({1, 2}));
  std::string v2 = npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }", data, 2);
  EXPECT_EQ(read(v2).dtype(), DType::kI32);
}

TEST_F(Npy, RefusesWhatItCannotRead) {
  EXPECT_THAT(why(with(">f4", "(1,)", "abcd")), HasSubstr("big-endian data (\">f4\")"));
  EXPECT_THAT(why(with("<c8", "(1,)", "abcdefgh")), HasSubstr("dtype \"<c8\" is not supported"));
  EXPECT_THAT(why(with("|O", "(1,)", "abcd")), HasSubstr("dtype \"|O\""));
  EXPECT_THAT(why(with("<U3", "(1,)", "abcd")), HasSubstr("dtype \"<U3\""));
  EXPECT_THAT(why(npy("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }", "abcd")),
              HasSubstr("expected a string"));
  EXPECT_THAT(why(with("<f4", "(2,)", "abcd")), HasSubstr("f32 of [2] needs 8 bytes, the file has 4"));
  EXPECT_THAT(why(with("<f4", "(1,)", "abcdefgh")), HasSubstr("needs 4 bytes, the file has 8"));
  EXPECT_THAT(why("PK\x03\x04"), HasSubstr("not a .npy file"));
  EXPECT_THAT(why(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "abcd", 4)), HasSubstr("version 4"));
}

TEST_F(Npy, EveryProblemIsListed) {
  const std::string both = why(npy("{'descr': '>f4', 'shape': (1, 2, 3, 4, 5, 6, 7, 8, 9, 10), } more", "abcd"));
  for (const char* part :
       {"4 problems", "big-endian", "no fortran_order", "dimensions are not supported", "text after"})
    EXPECT_THAT(both, HasSubstr(part));
  const std::string cut = why(npy("{'descr': '>f4', 'shape': (1, -2), }", "abcd"));
  for (const char* part : {"2 problems", "big-endian", "malformed shape"}) EXPECT_THAT(cut, HasSubstr(part));
  const std::string size = why(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} more", "abcd"));
  for (const char* part : {"2 problems", "text after the header", "needs 12 bytes"}) EXPECT_THAT(size, HasSubstr(part));
}

TEST_F(Npy, FortranOrderIsTransposed) {
  const Tensor t = read(npy("{'descr': '|i1', 'fortran_order': True, 'shape': (2, 3, 2), }", "abcdefghijkl"));
  EXPECT_EQ(t.shape(), Shape({2, 3, 2}));  // (i, j, k) lies at i + 2 j + 6 k
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(t.bytes()), 12), "agciekbhdjfl");
  EXPECT_EQ(read(npy("{'descr': '|i1', 'fortran_order': True, 'shape': (0, 3), }", "")).numel(), 0);
  EXPECT_EQ(read(npy("{'descr': '|i1', 'fortran_order': True, 'shape': (), }", "x")).numel(), 1);
  why(npy("{'descr': '|i1', 'fortran_order': None, 'shape': (1,), }", "x"));
}

TEST_F(Npy, AbsurdShapes) {
  for (const char* shape :
       {"(99999999999999999999,)", "(-1,)", "(4611686018427387904, 2)", "(2147483648, 2147483648, 2)",
        "(4611686018427387904,)", "(1,1,1,1,1,1,1)", "(1,,)", "(1", "1", "(x,)", "(1 2)", "(True,)"}) {
    SCOPED_TRACE(shape);
    why(with("<f4", shape, "abcd"));
  }
}

TEST_F(Npy, MalformedHeaders) {
  for (const char* h :
       {"", "{", "{}", "{'descr': '<f4'}", "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", "{'descr: ", "[]",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x", "{'descr' '<f4'}"}) {
    SCOPED_TRACE(h);
    why(npy(h, "abcd"));
  }
}

TEST_F(Npy, EveryTruncationIsRefused) {
  const std::string s = with("<f4", "(2,)", "abcdefgh");
  for (size_t n = 0; n < s.size(); ++n) EXPECT_THROW(read(s.substr(0, n)), Error) << n;
}

TEST_F(Npy, NpzStoredAndDeflated) {
  for (const bool zip64 : {false, true}) {
    TestZip z;
    z.add("x.npy", with("<i4", "(2,)", std::string("\1\0\0\0\2\0\0\0", 8)));
    z.add("group/zeros.npy", with("<f4", "(1000,)", std::string(4000, '\0')), true);
    const auto arrays = read_npz(dir_.write("a.npz", z.str(zip64)));
    ASSERT_EQ(arrays.size(), 2u);
    EXPECT_EQ(arrays.at("x").data<int32_t>()[1], 2);
    EXPECT_EQ(arrays.at("group/zeros").shape(), Shape({1000}));
  }
}

TEST_F(Npy, NpzRefusesOtherMembers) {
  TestZip z;
  z.add("x.txt", "hello");
  EXPECT_THAT(bad_data([&] { read_npz(dir_.write("a.npz", z.str())); }), HasSubstr("\"x.txt\": members must be .npy"));
  TestZip w;
  w.add("x.npy", "hello");
  EXPECT_THAT(bad_data([&] { read_npz(dir_.write("a.npz", w.str())); }), HasSubstr("\"x.npy\": not a .npy file"));
}

TEST(NpyShared, ReadsEveryGolden) {
  const fs::path data = fs::path(KRAIT_SHARED_DIR) / "data";
  if (!fs::exists(data)) GTEST_SKIP() << data << " is absent";
  int files = 0;
  for (const char* folder : {"goldens", "weights", "tiny/mamba2"}) {
    for (const auto& f : fs::recursive_directory_iterator(data / folder)) {
      SCOPED_TRACE(f.path().string());
      const bool npz = f.path().extension() == ".npz";
      if (!npz && f.path().extension() != ".npy") continue;
      EXPECT_GT(npz ? read_npz(f.path()).begin()->second.numel() : read_npy(f.path()).numel(), 0);
      ++files;
    }
  }
  EXPECT_GT(files, 20);
}

}  // namespace
}  // namespace krait::io
