#include "base/half.h"

#include <gtest/gtest.h>

#include <cmath>

namespace carat {
namespace {

TEST(Half, EveryF16SurvivesTheRoundTrip) {
  for (uint32_t b = 0; b < 65536; ++b) {
    const F16 h{static_cast<uint16_t>(b)};
    const float f = to_float(h);
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(to_float(to_f16(f))));
    } else {
      EXPECT_EQ(to_f16(f).bits, h.bits) << b;
    }
  }
}

TEST(Half, EveryBF16SurvivesTheRoundTrip) {
  for (uint32_t b = 0; b < 65536; ++b) {
    const BF16 h{static_cast<uint16_t>(b)};
    const float f = to_float(h);
    if (!std::isnan(f)) {
      EXPECT_EQ(to_bf16(f).bits, h.bits) << b;
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(to_f16(1.0f + 0x1p-11f).bits, to_f16(1.0f).bits);               // tie, to even
  EXPECT_EQ(to_f16(1.0f + 3 * 0x1p-11f).bits, to_f16(1.0f + 0x1p-9f).bits);  // tie, to even
  EXPECT_EQ(to_f16(65519.0f).bits, 0x7bff);
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(to_f16(0x1p-25f).bits, 0);        // tie between 0 and the smallest subnormal
  EXPECT_EQ(to_f16(0x1.8p-25f).bits, 1);
  EXPECT_EQ(to_f16(-0.0f).bits, 0x8000);
  EXPECT_EQ(to_bf16(1.0f + 0x1p-8f).bits, to_bf16(1.0f).bits);
  EXPECT_EQ(to_bf16(1.0f + 3 * 0x1p-8f).bits, to_bf16(1.0f + 0x1p-6f).bits);
}

}  // namespace
}  // namespace carat
