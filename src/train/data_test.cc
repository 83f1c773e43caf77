#include "train/data.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "train/tape_test_util.h"

namespace carat::train {
namespace {

TEST(TrainingData, AnEpochShowsEveryWindowOnce) {
  const int64_t length = 10;
  TrainingData data(testing::iota(1005), length, 7777, 3);
  std::set<int32_t> seen;
  const int64_t windows = 1005 / length - 1;
  const Batch b = data.batch(0, windows);
  ASSERT_EQ(b.sequences, windows);
  for (int64_t s = 0; s < windows; ++s) {
    EXPECT_EQ(b.tokens[static_cast<size_t>(s * length)], 7777);
    for (int64_t i = 0; i < length; ++i) {
      const size_t at = static_cast<size_t>(s * length + i);
      EXPECT_TRUE(seen.insert(b.targets[at]).second);
      if (i > 0) {
        EXPECT_EQ(b.tokens[at], b.targets[at - 1]);
      }
    }
  }
  EXPECT_EQ(seen.size(), static_cast<size_t>(windows * length));
}

TEST(TrainingData, ASequenceDependsOnItsNumberOnly) {
  TrainingData a(testing::iota(1005), 10, 0, 3), b(testing::iota(1005), 10, 0, 3);
  const Batch all = a.batch(0, 250);
  // Out of order, and across epochs.
  for (const int64_t k : {249, 0, 120, 98, 99, 100, 5}) {
    const Batch one = b.batch(k, 1);
    EXPECT_TRUE(std::equal(one.tokens.begin(), one.tokens.end(), all.tokens.begin() + k * 10));
  }
  TrainingData other(testing::iota(1005), 10, 0, 4);
  EXPECT_NE(other.batch(0, 20).targets, a.batch(0, 20).targets);
  EXPECT_NE(a.batch(0, 99).targets, a.batch(99, 99).targets) << "epochs differ";
}

TEST(TrainingData, RefusesATextShorterThanAWindow) {
  EXPECT_THROW(TrainingData(testing::iota(19), 10, 0, 1), Error);
}

TEST(HeldOutData, CutsTheTextInOrder) {
  const HeldOutData data(testing::iota(35), 10, 99);
  ASSERT_EQ(data.sequences(), 3);
  const Batch b = data.batch(1, 8);
  ASSERT_EQ(b.sequences, 2);
  EXPECT_EQ(b.targets.front(), 10);
  EXPECT_EQ(b.targets.back(), 29);
  EXPECT_EQ(b.tokens[10], 99);
}

}  // namespace
}  // namespace carat::train
