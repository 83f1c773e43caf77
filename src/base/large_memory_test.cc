#include "base/large_memory.h"

#include <gtest/gtest.h>

#include <limits>

namespace carat {
namespace {

TEST(LargeMemory, IsAlignedZeroAndWritable) {
  for (int64_t bytes : {int64_t{1}, int64_t{5000}, 3 * LargeMemory::kPage + 1}) {
    auto memory = LargeMemory::try_allocate(bytes);
    ASSERT_TRUE(memory);
    const LargeMemory moved = std::move(*memory);
    EXPECT_TRUE(memory->bytes().empty());
    const auto span = moved.bytes();
    ASSERT_EQ(static_cast<int64_t>(span.size()), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(span.data()) % LargeMemory::kPage, 0u);
    EXPECT_EQ(span.front(), std::byte{0});
    EXPECT_EQ(span.back(), std::byte{0});
    span.front() = span.back() = std::byte{1};
  }
}

TEST(LargeMemory, NothingIsNothing) {
  const auto memory = LargeMemory::try_allocate(0);
  ASSERT_TRUE(memory);
  EXPECT_TRUE(memory->bytes().empty());
}

TEST(LargeMemory, RefusesWhatCannotBe) {
  EXPECT_FALSE(LargeMemory::try_allocate(std::numeric_limits<int64_t>::max()));
  EXPECT_FALSE(LargeMemory::try_allocate(std::numeric_limits<int64_t>::max() / 2));
}

}  // namespace
}  // namespace carat
