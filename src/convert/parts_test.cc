#include "convert/parts.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace carat::convert {
namespace {

TensorReport rounded(DType from, DType to) {
  TensorReport t;
  t.source_name = "t";
  t.from = from;
  t.to = to;
  t.weights = 2;
  t.weights_bit_exact = 1;
  return t;
}

// Only a lattice that can be found again may be rounded to bfloat16 unasked.
TEST(Parts, CodesAreNotRoundedUnasked) {
  const ConvertOptions options;
  Losses happened;
  const auto check = [&](DType from, DType scales, const ConvertOptions& o) {
    check_rounded(rounded(from, DType::kBF16), scales, o, &happened);
  };
  for (const DType scales : {DType::kF16, DType::kBF16}) {
    EXPECT_NO_THROW(check(DType::kC4, scales, options));
    EXPECT_THROW(check(DType::kC8, scales, options), Error);
    EXPECT_THROW(check(DType::kC2, scales, options), Error);
  }
  EXPECT_NO_THROW(check(DType::kQ4_0, DType::kF32, options));
  EXPECT_THROW(check(DType::kC4, DType::kF32, options), Error);
  EXPECT_TRUE(happened.empty());

  ConvertOptions asked;
  asked.accepted.add(Loss::kRoundedWeights);
  EXPECT_NO_THROW(check(DType::kC4, DType::kF32, asked));
  EXPECT_TRUE(happened.accepts(Loss::kRoundedWeights));
}

}  // namespace
}  // namespace carat::convert
