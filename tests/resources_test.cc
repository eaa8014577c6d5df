// Resources: loading and dropping models again and again leaves nothing behind.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

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

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Exit code and peak memory, in bytes, of the program.
std::pair<int, int64_t> peak_of(std::vector<std::string> args, const std::string& out) {
  const pid_t pid = fork();
  if (pid == 0) {
    const int fd = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDOUT_FILENO);
    std::vector<char*> argv{const_cast<char*>("krait")};
    for (std::string& a : args) argv.push_back(a.data());
    argv.push_back(nullptr);
    execv(KRAIT_PROGRAM, argv.data());
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  wait4(pid, &status, 0, &usage);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, int64_t{usage.ru_maxrss} << 10};
}

// inspect's estimate against the peak of a run on the shipped model whose prompt fills a pass.
TEST(Resources, TrapJ5_TheMemoryEstimateIsWithin5PercentOfMeasured) {
  const io::TestFolder folder;
  const std::string prompt = KRAIT_SOURCE_DIR "/docs/design.md";
  ASSERT_EQ(peak_of({"inspect", "--json"}, (folder / "json").string()).first, 0);
  std::ifstream in(folder / "json");
  const auto j = nlohmann::json::parse(in);
  const double estimate = j["memory_estimate_bytes"];
  double sum = 0;
  for (const auto& part : j["memory"]) sum += part.get<double>();
  EXPECT_EQ(sum, estimate);
  const auto [code, peak] = peak_of({"run", "-f", prompt, "-n", "8"}, (folder / "text").string());
  ASSERT_EQ(code, 0);
  EXPECT_NEAR(estimate / static_cast<double>(peak), 1, 0.05) << j["memory"].dump(2) << "\npeak " << peak;
}
#endif

}  // namespace
}  // namespace krait::test
