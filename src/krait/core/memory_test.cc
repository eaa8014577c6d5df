#include "krait/core/memory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <random>
#include <vector>

namespace {
thread_local bool out_of_memory = false;
}

void* operator new(size_t bytes) {
  void* p = out_of_memory ? nullptr : std::malloc(bytes > 0 ? bytes : 1);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace krait {
namespace {

TEST(Memory, BlocksAreAlignedAndDoNotOverlap) {
  std::mt19937 random(1);
  struct Block {
    std::shared_ptr<void> memory;
    size_t bytes;
    int mark;
    bool intact() const {
      const auto* p = static_cast<const unsigned char*>(memory.get());
      return p[0] == mark && p[bytes / 2] == mark && p[bytes - 1] == mark;
    }
  };
  std::vector<Block> blocks;
  for (int i = 0; i < 2000; ++i) {
    if (blocks.size() > 40 || (!blocks.empty() && random() % 3 == 0)) {
      const size_t at = random() % blocks.size();
      ASSERT_TRUE(blocks[at].intact()) << "block " << at << " at step " << i;
      std::swap(blocks[at], blocks.back());
      blocks.pop_back();
    } else {
      const size_t bytes = 1 + random() % (random() % 4 == 0 ? 3000000 : 200000);
      Block b{allocate(bytes), bytes, i % 256};
      ASSERT_EQ(reinterpret_cast<uintptr_t>(b.memory.get()) % 64, 0u);
      std::memset(b.memory.get(), b.mark, bytes + 64);
      blocks.push_back(std::move(b));
    }
  }
  for (const Block& b : blocks) EXPECT_TRUE(b.intact());
}

// A forward pass asks for the same blocks again and again: it must not map memory each time.
TEST(Memory, BigBlocksAreUsedAgainAndNotHoarded) {
  if (slab_memory().mapped == 0 && (allocate(1 << 20), slab_memory().mapped == 0))
    GTEST_SKIP() << "checkers use no slabs";
  const MemoryUse before = slab_memory();
  const auto hold = allocate(1 << 20);
  const size_t mapped = slab_memory().mapped;
  for (int i = 0; i < 100; ++i) {
    const auto a = allocate(5 << 20), b = allocate(3 << 20);
    EXPECT_EQ(slab_memory().mapped, mapped);
  }
  {
    std::vector<std::shared_ptr<void>> many;
    for (int i = 0; i < 100; ++i) many.push_back(allocate(5 << 20));
  }
  EXPECT_LE(slab_memory().mapped, mapped + (size_t{64} << 20));
  const auto huge = allocate(size_t{100} << 20);  // more than a slab
  std::memset(huge.get(), 1, size_t{100} << 20);
  EXPECT_GE(slab_memory().used, before.used);
}

// Blocks go back without memory, and what cannot be entered in the books is not mapped.
TEST(Memory, WhenTheHeapIsExhausted) {
  std::vector<std::shared_ptr<void>> blocks;
  for (int i = 0; i < 9; ++i) blocks.push_back(allocate(1 << 20));
  const MemoryUse before = slab_memory();
  if (before.mapped == 0) GTEST_SKIP() << "checkers use no slabs";
  out_of_memory = true;
  bool refused = false;
  try {
    allocate(size_t{200} << 20);
  } catch (const std::bad_alloc&) {
    refused = true;
  }
  const MemoryUse after = slab_memory();
  for (const size_t i : {1, 3, 5, 7, 4, 0, 8, 2, 6}) blocks[i].reset();  // alone, between two, beside one
  out_of_memory = false;
  EXPECT_TRUE(refused);
  EXPECT_EQ(after.mapped, before.mapped);
  EXPECT_EQ(after.used, before.used);
  EXPECT_LE(slab_memory().used + (size_t{9} << 20), before.used);
}

}  // namespace
}  // namespace krait
