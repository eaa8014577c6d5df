// docs/support.md says which kernel set provides which op for which weight type; this test makes it and compares.
// `test_support --gtest_also_run_disabled_tests --gtest_filter=*Write` rewrites it.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "krait/backends/cpu/cpu_backend.h"

namespace krait {
namespace {

constexpr const char* kSets[] = {"cpu-avx512-bf16", "cpu-avx512", "cpu-avx2", "cpu-scalar"};

// Row label -> whether a set has the op.
std::vector<std::pair<std::string, bool>> ops_of(const KernelSet& k) {
  std::vector<std::pair<std::string, bool>> rows;
  for (const DType t : {DType::kF32, DType::kBF16, DType::kF16}) {
    const bool has = k.matmul != nullptr && k.pack_weight != nullptr && k.packed_weight_bytes(t, 16, 16) > 0;
    rows.emplace_back("matmul, " + std::string(name_of(t)) + " weights", has);
  }
  rows.emplace_back("embed, f32 bf16 f16 tables", k.embed != nullptr);
  rows.emplace_back("norm (RMS, Layer)", k.norm != nullptr);
  rows.emplace_back("gated_norm", k.gated_norm != nullptr);
  rows.emplace_back("silu_gate", k.silu_gate != nullptr);
  rows.emplace_back("add", k.add != nullptr);
  rows.emplace_back("causal_conv", k.causal_conv != nullptr);
  rows.emplace_back("mamba1_scan", k.mamba1_scan != nullptr);
  rows.emplace_back("ssd_scan", k.ssd_scan != nullptr);
  rows.emplace_back("mamba3_scan (SISO, MIMO)", k.mamba3_scan != nullptr);
  return rows;
}

// The table, with the columns of sets that this CPU cannot run assumed complete.
std::string table() {
  std::string s =
      "# Support\n\nMade and checked by `tests/support_test.cc`. Every entry is tested against its scalar template in "
      "double\n"
      "(`src/krait/backends/cpu/*_test.cc`) and, through mixers and models, by `tests/contract_test.cc` and "
      "`tests/parity_test.cc`.\n"
      "All activations, states and logits are f32.\n\n| op |";
  for (const char* set : kSets) s += std::string(" ") + set + " |";
  s += "\n|---|";
  for (size_t i = 0; i < std::size(kSets); ++i) s += ":-:|";
  s += "\n";
  const auto labels = ops_of(cpu_kernels());
  for (size_t i = 0; i < labels.size(); ++i) {
    s += "| " + labels[i].first + " |";
    for (const char* name : kSets) {
      const KernelSet* set = cpu_kernels(name);
      s += set == nullptr || ops_of(*set)[i].second ? " yes |" : " – |";
    }
    s += "\n";
  }
  return s;
}

const char* path() { return KRAIT_SOURCE_DIR "/docs/support.md"; }

TEST(Support, DocumentIsCurrent) {
  std::ifstream in(path(), std::ios::binary);
  const std::string have{std::istreambuf_iterator<char>(in), {}};
  EXPECT_EQ(have, table()) << "run test_support --gtest_also_run_disabled_tests --gtest_filter=*Write";
}

TEST(Support, DISABLED_Write) { std::ofstream(path(), std::ios::binary) << table(); }

}  // namespace
}  // namespace krait
