// The checks behind "krait verify": they pass on every generation, and they see a single wrong bit.
#include "krait/infer/verify.h"

#include <cmath>

#include "tests/tiny_models.h"

namespace krait::test {
namespace {

class Verify : public testing::TestWithParam<std::string> {};

VerifyOptions verify_options() {
  VerifyOptions o;
  o.length = 70;
  o.folder = fs::temp_directory_path();
  return o;
}

TEST_P(Verify, FindsEveryCaseBitEqual) {
  for (const DType t : {DType::kF32, DType::kBF16, DType::kF16}) {
    const auto rows = verify(*tiny_model(GetParam(), t), verify_options());
    EXPECT_EQ(rows.size(), 9u);
    EXPECT_EQ(rows[0].cases, 71) << "every position";
    for (const VerifyRow& r : rows) EXPECT_EQ(r.different, 0) << r.check << ": " << r.first;
  }
}

// A kernel whose last bit depends on the number of rows, as kernels do that were not made for the contract.
void sloppy_matmul(const Exec& exec, const MatmulParams& p) {
  cpu_kernels().matmul(exec, p);
  if (p.M == 3) p.y[0] = std::nextafterf(p.y[0], 1e9f);
}

TEST_P(Verify, TrapB10_FindsAWrongBit) {
  KernelSet sloppy = cpu_kernels();
  sloppy.matmul = sloppy_matmul;
  const auto m = tiny_model(GetParam());
  const Model wrong(m->spec(), m->params(), runtime(sloppy));
  const auto rows = verify(wrong, verify_options());
  EXPECT_GT(rows[0].different, 0) << "splits at 3 and 67";
  EXPECT_EQ(rows[1].different, 0) << "one token at a time has one row";
  EXPECT_EQ(rows[2].different, 1) << "chunks of 3";
  EXPECT_FALSE(rows[0].first.empty());
}

INSTANTIATE_TEST_SUITE_P(Tiny, Verify, testing::ValuesIn(tiny_names()), [](const auto& i) { return i.param; });

}  // namespace
}  // namespace krait::test
