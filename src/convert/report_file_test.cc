#include "convert/report_file.h"

#include <gtest/gtest.h>

namespace carat::convert {
namespace {

TEST(ReportFile, CodesAreCountedInPerCentAndUnusedOnesNamed) {
  LatticeStats stats;
  EXPECT_EQ(code_shares(stats).front(), "");
  EXPECT_EQ(unused_codes_text(stats), "");
  stats.codes[1] = 1;
  stats.codes[7] = 499;
  stats.codes[8] = 300;
  stats.codes[15] = 200;
  const auto shares = code_shares(stats);
  EXPECT_EQ(shares[0], "-");
  EXPECT_EQ(shares[1], "<1");
  EXPECT_EQ(shares[7], "50");
  EXPECT_EQ(shares[8], "30");
  EXPECT_EQ(shares[15], "20");
  EXPECT_EQ(unused_codes_text(stats), "0 2 3 4 5 6 9 10 11 12 13 14");
  for (int64_t& n : stats.codes) n = 5;
  EXPECT_EQ(unused_codes_text(stats), "none");
}

}  // namespace
}  // namespace carat::convert
