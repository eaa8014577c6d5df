// The files of tests/fixtures that fuzzers begin with are valid: mutations of a refused file would stop at its fault.
#include <gmock/gmock.h>

#include <cstring>
#include <string>

#include "krait/io/mapped_file.h"
#include "krait/io/npy.h"
#include "krait/io/safetensors.h"
#include "krait/io/torch_file.h"
#include "krait/io/zip.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;

const fs::path kFixtures = fs::path(KRAIT_SOURCE_DIR) / "tests/fixtures";

template <class T>
std::vector<T> values(const Tensor& t) {
  const auto* p = reinterpret_cast<const T*>(t.bytes());
  return {p, p + t.numel()};
}

TEST(Fixtures, Npy) {
  const Tensor m = read_npy(kFixtures / "matrix.npy"), c = read_npy(kFixtures / "column_major.npy");
  EXPECT_EQ(m.shape(), Shape({2, 3}));
  EXPECT_THAT(values<float>(m), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(values<int64_t>(c), ElementsAre(1, 2, 3, 4));
  const auto arrays = read_npz(kFixtures / "arrays.npz");
  EXPECT_EQ(arrays.size(), 2u);
  EXPECT_EQ(values<float>(arrays.at("m")), values<float>(m));
}

TEST(Fixtures, Zip) {
  const auto file = MappedFile::open(kFixtures / "stored.zip");
  const auto entries = list_zip(file->bytes(), "stored.zip");
  ASSERT_EQ(entries.size(), 2u);
  const auto text = stored_bytes(file->bytes(), entries[0], "stored.zip");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(text.data()), text.size()), "stored");
}

TEST(Fixtures, Safetensors) {
  const auto tensors = read_safetensors(kFixtures / "two_tensors.safetensors");
  EXPECT_THAT(values<float>(tensors.at("a")), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(values<uint16_t>(tensors.at("b")), ElementsAre(0x3F80, 0, 0xBF80, 0x4000));
  EXPECT_EQ(read_safetensors_index(kFixtures / "model.safetensors.index.json").size(), 2u);
}

TEST(Fixtures, TorchFile) {
  const auto tensors = read_torch(kFixtures / "three_tensors.pt");
  EXPECT_THAT(values<float>(tensors.at("a")), ElementsAre(0, 2, 4, 1, 3, 5));
  EXPECT_THAT(values<float>(tensors.at("b")), ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(values<uint16_t>(tensors.at("c")), ElementsAre(0x4000, 0x4200));
}

}  // namespace
}  // namespace krait::io
