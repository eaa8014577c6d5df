// Block types across the layers: a file of the gguf package is read, decoded to the package's bits and written again.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "krait/io/gguf.h"
#include "krait/io/test_folder.h"
#include "krait/ops/dequantize.h"

namespace krait {
namespace {

namespace fs = std::filesystem;

TEST(Blocks, AreReadAsTheGgufPackageReadsThem) {
  const auto g = io::Gguf::open(fs::path(KRAIT_SOURCE_DIR) / "tests/fixtures/blocks.gguf");
  std::vector<io::NamedTensor> tensors;
  for (const auto& [name, t] : g->tensors()) {
    tensors.push_back({name, t});
    if (!is_block_type(t.dtype())) continue;
    EXPECT_EQ(name, name_of(t.dtype()));
    const Tensor have = dequantize(t), want = g->tensors().at(name + ".f32");
    ASSERT_EQ(have.shape(), want.shape());
    EXPECT_EQ(std::memcmp(have.bytes(), want.bytes(), static_cast<size_t>(want.nbytes())), 0) << name;
  }
  ASSERT_EQ(tensors.size(), 24u);
  const io::TestFolder folder;
  const fs::path copy = folder / "copy.gguf";
  io::write_gguf(copy, {}, tensors);
  const auto again = io::Gguf::open(copy);
  for (const auto& [name, t] : tensors) {
    const Tensor& u = again->tensors().at(name);
    EXPECT_EQ(u.dtype(), t.dtype());
    EXPECT_EQ(std::memcmp(u.bytes(), t.bytes(), static_cast<size_t>(t.nbytes())), 0) << name;
  }
}

}  // namespace
}  // namespace krait
