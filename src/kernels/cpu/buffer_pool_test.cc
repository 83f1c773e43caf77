#include "kernels/cpu/buffer_pool.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <utility>
#include <vector>

namespace carat::kernels {
namespace {

TEST(BufferPool, BlocksAreAlignedDistinctAndLargeEnough) {
  BufferPool pool;
  std::set<void*> seen;
  std::vector<std::pair<void*, int64_t>> taken;
  for (int64_t bytes : {1, 63, 64, 65, 80, 81, 1000, 4096, 4097, 1 << 20}) {
    void* p = pool.take(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u);
    EXPECT_TRUE(seen.insert(p).second);
    std::memset(p, 1, static_cast<size_t>(bytes));
    taken.emplace_back(p, bytes);
  }
  for (const auto& [p, bytes] : taken) pool.give(p, bytes);
  EXPECT_EQ(pool.bytes_in_use(), 0);
}

TEST(BufferPool, GivesTheSameBlockAgainForNearbySizes) {
  BufferPool pool;
  void* p = pool.take(1000);
  pool.give(p, 1000);
  EXPECT_EQ(pool.take(1020), p);  // both in the class of 1024
  EXPECT_EQ(pool.bytes_in_use(), 1024);
  pool.give(p, 1020);
  EXPECT_EQ(pool.bytes_at_rest(), 1024);
  void* q = pool.take(1025);
  EXPECT_NE(q, p);
  pool.give(q, 1025);
}

TEST(BufferPool, WastesAtMostAQuarter) {
  BufferPool pool;
  for (int64_t bytes = 64; bytes < 100000; bytes = bytes * 9 / 8 + 1) {
    void* p = pool.take(bytes);
    EXPECT_GE(pool.bytes_in_use(), bytes);
    EXPECT_LE(pool.bytes_in_use(), bytes * 5 / 4);
    pool.give(p, bytes);
  }
}

TEST(BufferPool, NothingForZeroBytes) {
  BufferPool pool;
  EXPECT_EQ(pool.take(0), nullptr);
  pool.give(nullptr, 0);
  EXPECT_EQ(pool.bytes_in_use(), 0);
}

TEST(BufferPool, LargeBlocksGoBackAboveTheLimit) {
  BufferPool pool;
  const int64_t size = BufferPool::kKeepBytes / 2 + 1;
  void* a = pool.take(size);
  void* b = pool.take(size);
  pool.give(a, size);
  pool.give(b, size);
  EXPECT_LE(pool.bytes_at_rest(), BufferPool::kKeepBytes);
  EXPECT_GT(pool.bytes_at_rest(), 0);
}

TEST(BufferPool, ServesSharedPointers) {
  BufferPool pool;
  {
    const auto p = std::allocate_shared<int>(PoolAllocator<int>(&pool), 7);
    EXPECT_EQ(*p, 7);
    EXPECT_GT(pool.bytes_in_use(), 0);
  }
  EXPECT_EQ(pool.bytes_in_use(), 0);
}

}  // namespace
}  // namespace carat::kernels
