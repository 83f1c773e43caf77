#include "audit/compare.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/rng.h"

namespace carat::audit {
namespace {

std::vector<float> logs(const std::vector<double>& probabilities, float shift = 0) {
  std::vector<float> row;
  for (const double p : probabilities) row.push_back(static_cast<float>(std::log(p)) + shift);
  return row;
}

TEST(ComparePosition, MatchesClosedFormOfTwoDistributions) {
  const std::vector<double> p = {0.5, 0.25, 0.25};
  const std::vector<double> q = {0.25, 0.25, 0.5};
  // A softmax does not notice a shift of its logits.
  const Position x = compare_position(logs(p, 3), logs(q, -7), 2);
  EXPECT_NEAR(x.kld, 0.25 * std::log(2.0), 1e-7);
  EXPECT_NEAR(x.reference_nll, std::log(4.0), 1e-6);
  EXPECT_NEAR(x.candidate_nll, std::log(2.0), 1e-6);
  EXPECT_FALSE(x.same_top());
}

TEST(ComparePosition, DirectionIsReferenceToCandidate) {
  const std::vector<double> p = {0.9, 0.1};
  const std::vector<double> q = {0.5, 0.5};
  const double pq = 0.9 * std::log(1.8) + 0.1 * std::log(0.2);
  const double qp = 0.5 * std::log(0.5 / 0.9) + 0.5 * std::log(5.0);
  EXPECT_NEAR(compare_position(logs(p), logs(q), 0).kld, pq, 1e-7);
  EXPECT_NEAR(compare_position(logs(q), logs(p), 0).kld, qp, 1e-7);
}

TEST(ComparePosition, GaussianLogitsGiveTheGaussianDivergence) {
  // Discretised normals of equal width: KL = (m1 - m2)^2 / (2 s^2).
  std::vector<float> a, b;
  for (int i = -4000; i <= 4000; ++i) {
    const double x = i * 0.01;
    a.push_back(static_cast<float>(-0.5 * x * x));
    b.push_back(static_cast<float>(-0.5 * (x - 0.3) * (x - 0.3)));
  }
  EXPECT_NEAR(compare_position(a, b, 4000).kld, 0.045, 1e-6);
}

TEST(ComparePosition, EqualLogitsGiveExactlyZero) {
  Rng rng(3);
  std::vector<float> row(1000);
  for (float& x : row) x = static_cast<float>(10 * rng.normal());
  const Position x = compare_position(row, row, 7);
  EXPECT_EQ(x.kld, 0.0);
  EXPECT_EQ(x.reference_nll, x.candidate_nll);
  EXPECT_TRUE(x.same_top());
}

TEST(ComparePosition, ImpossibleTokensCountNothingInTheReferenceAndInfinityInTheCandidate) {
  const float never = -std::numeric_limits<float>::infinity();
  const std::vector<float> with = {0, 0};
  const std::vector<float> without = {0, never};
  EXPECT_NEAR(compare_position(without, with, 0).kld, std::log(2.0), 1e-12);
  EXPECT_TRUE(std::isinf(compare_position(with, without, 0).kld));
}

TEST(ComparePosition, NotANumberIsNotHidden) {
  const std::vector<float> good = {0, 1};
  const std::vector<float> bad = {0, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_TRUE(std::isnan(compare_position(good, bad, 0).kld));
  EXPECT_TRUE(std::isnan(compare_position(bad, good, 0).kld));
}

TEST(ComparePosition, TiesGoToTheLowerToken) {
  const std::vector<float> row = {1, 5, 5};
  EXPECT_EQ(argmax(row), 1);
}

// What the definitions say, in extended precision and in the plainest way.
struct Plain {
  explicit Plain(const std::vector<float>& row) : p(row.size()) {
    long double sum = 0;
    for (const float x : row) sum += std::exp(static_cast<long double>(x));
    for (size_t v = 0; v < row.size(); ++v) {
      p[v] = std::exp(static_cast<long double>(row[v])) / sum;
    }
    order.resize(row.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)];
    });
  }
  std::vector<long double> p;
  std::vector<int32_t> order;  // most likely first
};

std::vector<float> random_row(Rng& rng, size_t size, double spread) {
  std::vector<float> row(size);
  for (float& x : row) x = static_cast<float>(spread * rng.normal());
  return row;
}

// Sizes below, at and above a block and its lanes.
TEST(ComparePosition, AgreesWithBruteForceOnRandomRows) {
  Rng rng(17);
  for (const size_t size : {1, 2, 4, 5, 6, 127, 128, 129, 131, 256, 1000, 4099}) {
    for (const double spread : {0.01, 1.0, 8.0}) {
      std::vector<float> a = random_row(rng, size, spread);
      std::vector<float> b = a;
      for (float& x : b) x += static_cast<float>(0.4 * rng.normal());
      const auto next = static_cast<int32_t>(rng.below(size));
      const Plain p(a), q(b);
      long double kld = 0, entropy = 0;
      for (size_t v = 0; v < size; ++v) {
        kld += p.p[v] * (std::log(p.p[v]) - std::log(q.p[v]));
        entropy -= p.p[v] * std::log(p.p[v]);
      }
      const Position x = compare_position(a, b, next);
      EXPECT_NEAR(x.kld, static_cast<double>(kld), 1e-13) << size << " " << spread;
      EXPECT_NEAR(x.entropy, static_cast<double>(entropy), 1e-6) << size << " " << spread;
      const auto n = static_cast<size_t>(next);
      EXPECT_NEAR(x.reference_nll, static_cast<double>(-std::log(p.p[n])), 1e-12);
      EXPECT_NEAR(x.candidate_nll, static_cast<double>(-std::log(q.p[n])), 1e-12);
      EXPECT_NEAR(x.delta_p(), static_cast<double>(q.p[n] - p.p[n]), 1e-13);
      EXPECT_EQ(x.next, next);
      const size_t compared = std::min<size_t>(size, 5);
      int shared = 0;
      for (size_t i = 0; i < compared; ++i) {
        shared += static_cast<int>(std::count(
            q.order.begin(), q.order.begin() + static_cast<std::ptrdiff_t>(compared), p.order[i]));
      }
      EXPECT_FLOAT_EQ(x.top5_overlap, static_cast<float>(shared) / static_cast<float>(compared));
      for (size_t i = 0; i < kTopKept; ++i) {
        if (i >= size) {
          EXPECT_EQ(x.reference_top[i].token, -1);
          continue;
        }
        EXPECT_EQ(x.reference_top[i].token, p.order[i]);
        EXPECT_EQ(x.candidate_top[i].token, q.order[i]);
        EXPECT_NEAR(x.reference_top[i].probability,
                    static_cast<double>(p.p[static_cast<size_t>(p.order[i])]), 1e-7);
        EXPECT_NEAR(x.candidate_top[i].probability,
                    static_cast<double>(q.p[static_cast<size_t>(q.order[i])]), 1e-7);
      }
      EXPECT_EQ(x.same_top(), p.order[0] == q.order[0]);
    }
  }
}

TEST(ComparePosition, KnowsMarginAndOverlap) {
  const std::vector<double> p = {0.05, 0.5, 0.2, 0.1, 0.06, 0.09};
  const std::vector<double> q = {0.5, 0.05, 0.2, 0.1, 0.06, 0.09};
  const Position x = compare_position(logs(p), logs(q), 1);
  EXPECT_NEAR(x.margin(), 0.3, 1e-6);
  EXPECT_FLOAT_EQ(x.top5_overlap, 0.8f);  // 1 2 3 5 4 and 0 2 3 5 4
  EXPECT_NEAR(x.delta_p(), -0.45, 1e-6);
  EXPECT_EQ(x.reference_top[0].token, 1);
  EXPECT_EQ(x.candidate_top[0].token, 0);
  EXPECT_EQ(x.reference_top[2].token, 3);
}

// Ties among the first go to the lower ids, wherever blocks begin and end.
TEST(ComparePosition, TopsOfEqualLogitsAreTheLowestIds) {
  const std::vector<float> flat(1000, 1.5f);
  std::vector<float> late = flat;
  for (const size_t at : {127, 128, 700, 701, 999}) late[at] = 2;
  const Position x = compare_position(flat, late, 3);
  EXPECT_EQ(x.reference_top[0].token, 0);
  EXPECT_EQ(x.reference_top[2].token, 2);
  EXPECT_EQ(x.candidate_top[0].token, 127);
  EXPECT_EQ(x.candidate_top[1].token, 128);
  EXPECT_EQ(x.candidate_top[2].token, 700);
  EXPECT_EQ(x.top5_overlap, 0);
  EXPECT_NEAR(x.entropy, std::log(1000.0), 1e-6);
}

// Distances at which e^x is no number of a double any more.
TEST(ComparePosition, LogitsFarApartAreExact) {
  const std::vector<float> p = {0, -3e4f};
  const std::vector<float> q = {0, -1e4f};
  EXPECT_EQ(compare_position(p, q, 0).kld, 0);
  EXPECT_EQ(compare_position(p, q, 1).reference_nll, 3e4);
  const std::vector<float> turned = {-900, 0};
  EXPECT_EQ(compare_position(p, turned, 0).kld, 900);
}

}  // namespace
}  // namespace carat::audit
