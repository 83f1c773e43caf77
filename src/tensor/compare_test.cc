#include "tensor/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace carat {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(Compare, EqualArrays) {
  const std::vector<float> a = {1.0f, -2.0f, 0.0f, kInf, kNan};
  const Comparison c = compare(a, a);
  EXPECT_EQ(c.n, 5);
  EXPECT_EQ(c.n_different, 0);
  EXPECT_EQ(c.first_different, -1);
  EXPECT_EQ(c.max_abs, 0);
  EXPECT_EQ(c.nmse, 0);
  EXPECT_DOUBLE_EQ(c.cosine, 1);
  EXPECT_EQ(to_string(c), "all 5 equal");
}

TEST(Compare, FiguresOfAKnownDifference) {
  const std::vector<float> want = {3.0f, 4.0f, 0.5f}, got = {3.0f, 5.0f, 0.0f};
  const Comparison c = compare(got, want);
  EXPECT_EQ(c.n_different, 2);
  EXPECT_EQ(c.first_different, 1);
  EXPECT_DOUBLE_EQ(c.max_abs, 1);
  EXPECT_DOUBLE_EQ(c.max_rel, 1);
  EXPECT_DOUBLE_EQ(c.nmse, 1.25 / 25.25);
  EXPECT_DOUBLE_EQ(c.cosine, 29 / std::sqrt(34.0 * 25.25));
}

TEST(Compare, ZeroReference) {
  const std::vector<float> zero = {0.0f, 0.0f}, got = {0.0f, 1.0f};
  EXPECT_EQ(compare(zero, zero).cosine, 1);
  const Comparison c = compare(got, zero);
  EXPECT_TRUE(std::isinf(c.nmse));
  EXPECT_TRUE(std::isinf(c.max_rel));
  EXPECT_EQ(c.cosine, 0);
}

TEST(Compare, NotFiniteOnOneSideIsNeverClose) {
  const std::vector<float> want = {1.0f, 2.0f};
  for (float bad : {kNan, kInf, -kInf}) {
    const Comparison c = compare(std::vector<float>{1.0f, bad}, want);
    EXPECT_EQ(c.n_different, 1);
    EXPECT_TRUE(std::isinf(c.nmse));
    EXPECT_TRUE(std::isinf(c.max_abs));
    EXPECT_EQ(c.cosine, 0);
    EXPECT_TRUE(std::isinf(compare(want, std::vector<float>{1.0f, bad}).nmse));
  }
  EXPECT_TRUE(std::isinf(compare(std::vector<float>{kInf}, std::vector<float>{-kInf}).nmse));
}

TEST(Compare, BitDifferenceSeesSignOfZero) {
  const std::vector<float> a = {1.0f, 0.0f, kNan}, b = {1.0f, -0.0f, -kNan};
  EXPECT_EQ(first_bit_difference(a, b), 1);
  EXPECT_EQ(compare(a, b).n_different, 0);
  EXPECT_EQ(first_bit_difference(a, a), -1);
  EXPECT_EQ(first_bit_difference(std::vector<float>{1.0f},
                                 std::vector<float>{std::nextafter(1.0f, 2.0f)}),
            0);
}

TEST(Compare, Empty) {
  EXPECT_EQ(compare({}, {}).n, 0);
  EXPECT_EQ(first_bit_difference({}, {}), -1);
}

}  // namespace
}  // namespace carat
