// Means and differences against numbers made by hand; MeasuresWhatAnAuditDoes in search_test.cc has
// the rest.
#include "quantize/kld_meter.h"

#include <gtest/gtest.h>

#include <cmath>

namespace carat::quantize {
namespace {

TEST(Klds, MeansCountPositions) {
  const Klds k{{1, 5, 3}, {10, 20, 30}};
  EXPECT_DOUBLE_EQ(k.mean(), 9.0 / 60);
  const audit::Figure f = k.figure();
  EXPECT_DOUBLE_EQ(f.value, 9.0 / 60);
  ASSERT_TRUE(f.interval.has_value());
  EXPECT_LE(f.interval->low, f.value);
  EXPECT_GE(f.interval->high, f.value);
  EXPECT_FALSE((Klds{{1}, {10}}.figure().interval.has_value()));
}

TEST(Klds, DifferencesAreThoseOfPairsWithTheErrorOverChunks) {
  // Differences of chunks 2, 4, 6, -2 and 0 of 10 positions each: 0.2 a position. About it they are
  // off by 0, 2, 4, -4 and -2: squares 40, times 5 / 4, its root over 50 positions.
  const Klds a{{12, 14, 16, 8, 10}, {10, 10, 10, 10, 10}}, b{{10, 10, 10, 10, 10}, a.counts};
  const KldDifference d = difference(a, b);
  EXPECT_NEAR(d.mean, 0.2, 1e-15);
  EXPECT_NEAR(d.error, std::sqrt(50.0) / 50, 1e-15);
  EXPECT_NEAR(difference(b, a).mean, -0.2, 1e-15);
  // Chunks of 10 and 30 positions, 1 and 7 apart: 0.2 a position, off by -1 and 1.
  const Klds c{{2, 9}, {10, 30}}, e{{1, 2}, {10, 30}};
  EXPECT_NEAR(difference(c, e).mean, 0.2, 1e-15);
  EXPECT_NEAR(difference(c, e).error, 2.0 / 40, 1e-15);
  EXPECT_TRUE(std::isinf(difference({{1}, {10}}, {{2}, {10}}).error));
  EXPECT_EQ(difference(a, a).error, 0);
}

}  // namespace
}  // namespace carat::quantize
