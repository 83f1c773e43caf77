// The scalar kernels against formulas in double from the C library.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "kernels/scalar/activation.h"
#include "kernels/scalar/attention.h"
#include "kernels/scalar/linear.h"
#include "kernels/scalar/math.h"
#include "kernels/scalar/rms_norm.h"
#include "kernels/scalar/rope.h"
#include "kernels/scalar/route.h"
#include "tensor/compare.h"

namespace carat::kernels::scalar {
namespace {

template <class T>
std::vector<T> normal(Rng& rng, int64_t n) {
  std::vector<T> v(static_cast<size_t>(n));
  for (T& x : v) x = static_cast<T>(rng.normal());
  return v;
}

TEST(Scalar, ExpIsExp) {
  double worst = 0;
  for (float x = -87.0f; x < 88.7f; x += 0.00173f) {
    const double want = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::fabs(exp_of(x) - want) / want);
  }
  EXPECT_LT(worst, 1.2e-7);
  EXPECT_EQ(exp_of(0.0f), 1.0f);
  EXPECT_EQ(exp_of(-104.0f), 0.0f);
  EXPECT_EQ(exp_of(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_TRUE(std::isinf(exp_of(88.8f)));
  EXPECT_TRUE(std::isinf(exp_of(std::numeric_limits<float>::infinity())));
  EXPECT_TRUE(std::isnan(exp_of(std::nanf(""))));
  EXPECT_NEAR(exp_of(-100.0f), std::exp(-100.0), 2e-45);
}

TEST(Scalar, TanhIsTanh) {
  double worst = 0;
  for (float x = 1e-6f; x < 12.0f; x *= 1.0007f) {
    const double want = std::tanh(static_cast<double>(x));
    worst = std::max(worst, std::fabs(tanh_of(x) - want) / want);
    EXPECT_EQ(tanh_of(-x), -tanh_of(x));
  }
  EXPECT_LT(worst, 4e-7);
  EXPECT_EQ(tanh_of(100.0f), 1.0f);
  EXPECT_EQ(tanh_of(-std::numeric_limits<float>::infinity()), -1.0f);
  EXPECT_TRUE(std::isnan(tanh_of(std::nanf(""))));
}

TEST(Scalar, GeluIsTheTanhForm) {
  for (double x = -12.0; x < 12.0; x += 0.0117) {
    const double want = x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    EXPECT_NEAR(gelu_tanh(x), want, 1e-12);
    EXPECT_NEAR(gelu_tanh(static_cast<float>(x)), want, 1e-6 * std::fabs(x) + 1e-9);
  }
}

// The order that ops.h promises, written out without a loop over lanes.
TEST(Scalar, DotHasTheCanonicalOrder) {
  Rng rng(3);
  for (int64_t n : {1, 7, 8, 9, 20, 64}) {
    const auto a = normal<float>(rng, n), b = normal<float>(rng, n);
    float lane[8];
    for (int64_t l = 0; l < 8; ++l) {
      lane[l] = 0;
      for (int64_t i = l; i < n; i += 8) {
        lane[l] = std::fma(a[static_cast<size_t>(i)], b[static_cast<size_t>(i)], lane[l]);
      }
    }
    const float want =
        ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    EXPECT_EQ(dot(a.data(), b.data(), n), want);
  }
}

template <class T>
class ScalarOf : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(ScalarOf, Types);

TYPED_TEST(ScalarOf, RmsNormHasUnitMeanSquare) {
  using T = TypeParam;
  Rng rng(4);
  const auto x = normal<T>(rng, 100), w = normal<T>(rng, 100);
  std::vector<T> y(100), z(100);
  rms_norm(x.data(), static_cast<const T*>(nullptr), int64_t{100}, T(0), y.data());
  double sum = 0;
  for (T v : y) sum += static_cast<double>(v) * v;
  EXPECT_NEAR(sum / 100, 1, 1e-6);
  rms_norm(x.data(), w.data(), int64_t{100}, T(0), z.data());
  for (size_t i = 0; i < 100; ++i) EXPECT_EQ(z[i], y[i] * w[i]);
  const std::vector<T> zero(100, T(0));
  rms_norm(zero.data(), w.data(), int64_t{100}, T(1e-6), z.data());
  for (T v : z) EXPECT_EQ(v, T(0));
}

TYPED_TEST(ScalarOf, RopeTurnsPairs) {
  using T = TypeParam;
  const float frequency[3] = {1.0f, 0.25f, 0.0f};
  T cos[2], sin[2];
  rope_turns(3, frequency, 2, cos, sin);
  const std::vector<T> x = {1, 2, 3, 4, 5, 6};
  std::vector<T> y(6);
  rope_head(x.data(), cos, sin, int64_t{2}, int64_t{6}, y.data());
  EXPECT_NEAR(y[0], std::cos(3.0) * 1 - std::sin(3.0) * 4, 1e-6);
  EXPECT_NEAR(y[3], std::cos(3.0) * 4 + std::sin(3.0) * 1, 1e-6);
  EXPECT_NEAR(y[1], std::cos(0.75) * 2 - std::sin(0.75) * 5, 1e-6);
  EXPECT_NEAR(y[4], std::cos(0.75) * 5 + std::sin(0.75) * 2, 1e-6);
  EXPECT_EQ(y[2], T(3));
  EXPECT_EQ(y[5], T(6));
}

TYPED_TEST(ScalarOf, AttentionIsSoftmax) {
  using T = TypeParam;
  Rng rng(5);
  const int64_t n = 150, heads = 4, kv_heads = 2, dim = 16;
  for (int64_t window : {0, 1, 40, 64, 100}) {
    const auto q = normal<T>(rng, n * heads * dim), k = normal<T>(rng, n * kv_heads * dim),
               v = normal<T>(rng, n * kv_heads * dim);
    std::vector<int32_t> positions;
    for (int32_t t = 0; t < n; ++t) positions.push_back(t);
    std::vector<T> out(q.size()), scratch(kKvPageTokens + dim);
    attention(q.data(), positions.data(), n, k.data(), v.data(), heads, kv_heads, dim, window,
              scratch.data(), out.data());
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        std::vector<double> want(static_cast<size_t>(dim), 0.0);
        double total = 0;
        for (int64_t p = 0; p <= t; ++p) {
          if (window > 0 && p <= t - window) continue;
          const size_t qa = static_cast<size_t>((t * heads + h) * dim);
          const size_t ka = static_cast<size_t>((p * kv_heads + h / 2) * dim);
          double score = 0;
          for (size_t d = 0; d < 16; ++d) score += static_cast<double>(q[qa + d]) * k[ka + d];
          const double w = std::exp(score);
          total += w;
          for (size_t d = 0; d < 16; ++d) want[d] += w * v[ka + d];
        }
        for (size_t d = 0; d < 16; ++d) {
          ASSERT_NEAR(out[static_cast<size_t>((t * heads + h) * dim) + d], want[d] / total, 1e-5);
        }
      }
    }
  }
}

TYPED_TEST(ScalarOf, RouteTakesTheLargest) {
  using T = TypeParam;
  const std::vector<T> logits = {1, 3, 2, 3, -1}, scale = {1, 2, 1, 0.5, 1};
  std::vector<T> p(5), weights(3);
  std::vector<int32_t> ids(3);
  route_row(logits.data(), int64_t{5}, scale.data(), int64_t{3}, p.data(), weights.data(),
            ids.data());
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 3, 2}));  // the lower index first on ties
  const double e3 = std::exp(3.0), e2 = std::exp(2.0), sum = 2 * e3 + e2;
  EXPECT_NEAR(weights[0], 2 * e3 / sum, 1e-6);
  EXPECT_NEAR(weights[1], 0.5 * e3 / sum, 1e-6);
  EXPECT_NEAR(weights[2], e2 / sum, 1e-6);
}

// Logits that are not finite still give ids in range.
TEST(Scalar, RouteOfNanStaysInRange) {
  std::vector<float> logits(6, std::nanf("")), scale(6, 1.0f), p(6), weights(2);
  std::vector<int32_t> ids = {-1, -1};
  route_row(logits.data(), int64_t{6}, scale.data(), int64_t{2}, p.data(), weights.data(),
            ids.data());
  for (int32_t id : ids) EXPECT_TRUE(id >= 0 && id < 6);
  EXPECT_NE(ids[0], ids[1]);
}

}  // namespace
}  // namespace carat::kernels::scalar
