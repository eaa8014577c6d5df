// Resources: loading and dropping models again and again leaves nothing behind.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "krait/io/test_folder.h"
#include "krait/models/export.h"
#include "tests/tiny_models.h"

namespace krait::test {
namespace {

int64_t resident_bytes() {
  std::ifstream in("/proc/self/statm");
  int64_t total = 0, resident = 0;
  in >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

int64_t open_files() {
  int64_t n = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator("/proc/self/fd")) ++n;
  return n;
}

TEST(Resources, ThousandLoadsLeaveNothingBehind) {
  const io::TestFolder folder;
  const ModelSpec spec = tiny_spec("mamba2");
  save_folder(spec, random_params(spec, 1, DType::kBF16, pool()), folder / "model", CheckpointForm::kAuto);
  const std::vector<int32_t> ids = {1, 2, 3};
  const auto load_once = [&] {
    const LoadedModel m = load_model(folder / "model", runtime());
    ASSERT_EQ(all_logits(*m.model, ids).dim(0), 3);
  };
  for (int i = 0; i < 50; ++i) load_once();
  const int64_t memory = resident_bytes(), files = open_files();
  for (int i = 0; i < 1000; ++i) load_once();
  EXPECT_EQ(open_files(), files);
  EXPECT_LT(resident_bytes() - memory, int64_t{4} << 20);
}

}  // namespace
}  // namespace krait::test
