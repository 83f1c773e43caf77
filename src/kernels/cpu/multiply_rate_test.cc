#include "kernels/cpu/multiply_rate.h"

#include <gtest/gtest.h>

#include "kernels/cpu/bandwidth.h"
#include "kernels/cpu/dispatch.h"

namespace carat::kernels {
namespace {

// No figure is expected, only that the loop of each table that runs here runs here too.
TEST(MultiplyRate, EveryTableHasALoop) {
  ThreadPool pool(2);
  for (const KernelTable* table : supported_kernels()) {
    const double rate = measure_multiply_rate(pool, table->isa, 1);
    EXPECT_GT(rate, 1e6) << table->isa;
    EXPECT_LT(rate, 1e15) << table->isa;
  }
  EXPECT_GT(measure_multiply_rate(pool, "no such set", 1), 1e6);  // the portable one
}

TEST(Bandwidth, ReadsMemoryOfAnySize) {
  ThreadPool pool(2);
  EXPECT_GT(measure_read_bandwidth(pool, int64_t{1} << 20, 1), 1e6);
  EXPECT_GT(measure_read_bandwidth(pool, (int64_t{9} << 20) + 64, 1), 1e6);
}

}  // namespace
}  // namespace carat::kernels
