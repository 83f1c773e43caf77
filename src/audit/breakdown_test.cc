#include "audit/breakdown.h"

#include <gtest/gtest.h>

#include <cmath>

namespace carat::audit {
namespace {

Position at(float first, float second, float entropy, int32_t index) {
  Position p;
  p.entropy = entropy;
  p.index = index;
  p.reference_top = {{{0, first}, {1, second}, {2, 0}}};
  return p;
}

TEST(BinOf, LowerEndsBelongToTheBin) {
  EXPECT_EQ(bin_of(Axis::kMargin, at(0.5f, 0.5f, 0, 1)), 0u);
  EXPECT_EQ(bin_of(Axis::kMargin, at(0.5f, 0.25f, 0, 1)), 1u);
  EXPECT_EQ(bin_of(Axis::kMargin, at(0.75f, 0.25f, 0, 1)), 2u);
  EXPECT_EQ(bin_of(Axis::kMargin, at(1, 0, 0, 1)), 2u);
  EXPECT_EQ(bin_of(Axis::kEntropy, at(1, 0, 0, 1)), 0u);
  EXPECT_EQ(bin_of(Axis::kEntropy, at(1, 0, 1, 1)), 3u);
  EXPECT_EQ(bin_of(Axis::kEntropy, at(1, 0, 12, 1)), 5u);
  EXPECT_EQ(bin_of(Axis::kPosition, at(1, 0, 0, 1)), 0u);
  EXPECT_EQ(bin_of(Axis::kPosition, at(1, 0, 0, 3)), 1u);
  EXPECT_EQ(bin_of(Axis::kPosition, at(1, 0, 0, 4)), 2u);
  EXPECT_EQ(bin_of(Axis::kPosition, at(1, 0, 0, 511)), 8u);
  EXPECT_EQ(bin_of(Axis::kPosition, at(1, 0, 0, 512)), 9u);
  EXPECT_EQ(bin_of(Axis::kPosition, at(1, 0, 0, 0x7fffffff)), 30u);
}

TEST(HistogramTest, EveryValueLiesBetweenItsEdges) {
  EXPECT_TRUE(Histogram().bins().empty());
  for (int i = -500; i < 500; ++i) {
    const double kld = std::pow(10.0, i / 50.0);  // edges among them
    Histogram one;
    one.add(kld);
    const auto bins = one.bins();
    EXPECT_EQ(bins.back().tokens, 1);
    EXPECT_LE(bins.back().from, kld) << i;
    EXPECT_GT(bins.back().to, kld) << i;
  }
  Histogram some;
  for (const double kld : {0.0, 0.0, 1e-12, 1e-8, 0.5}) some.add(kld);
  const auto bins = some.bins();
  EXPECT_EQ(bins[0].tokens, 3);
  EXPECT_EQ(bins[0].from, 0);
  EXPECT_EQ(bins[1].tokens, 1);
  EXPECT_EQ(bins.back().tokens, 1);
  for (size_t i = 1; i < bins.size(); ++i) EXPECT_EQ(bins[i].from, bins[i - 1].to);
}

}  // namespace
}  // namespace carat::audit
