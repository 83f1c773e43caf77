#include "audit/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
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
  EXPECT_FALSE(x.same_top);
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
  EXPECT_TRUE(x.same_top);
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

TEST(Quantile, InterpolatesBetweenRanks) {
  const std::vector<double> v = {1, 2, 3, 4};
  EXPECT_EQ(quantile(v, 0), 1);
  EXPECT_EQ(quantile(v, 0.5), 2.5);
  EXPECT_EQ(quantile(v, 1), 4);
  EXPECT_NEAR(quantile(v, 0.99), 3.97, 1e-12);
}

std::vector<std::vector<Position>> uniform_chunks(int chunks, int length) {
  std::vector<std::vector<Position>> out;
  int i = 0;
  const int n = chunks * length;
  for (int c = 0; c < chunks; ++c) {
    std::vector<Position> chunk;
    for (int t = 0; t < length; ++t, ++i) {
      // Every value of 0..n-1 once, spread over the chunks.
      const int rank = (i * 7919) % n;
      chunk.push_back({.kld = static_cast<double>(rank),
                       .reference_nll = 1.0,
                       .candidate_nll = 1.25,
                       .same_top = rank % 4 != 0});
    }
    out.push_back(chunk);
  }
  return out;
}

TEST(Summarize, KnowsTheFiguresOfAUniformSet) {
  const Summary s = summarize(uniform_chunks(10, 100), {});
  EXPECT_EQ(s.tokens, 1000);
  EXPECT_EQ(s.chunks, 10);
  EXPECT_NEAR(s.mean_kld.value, 499.5, 1e-9);
  EXPECT_NEAR(s.median_kld.value, 499.5, 1e-9);
  EXPECT_NEAR(s.p90_kld.value, 899.1, 1e-9);
  EXPECT_NEAR(s.p99_kld.value, 989.01, 1e-9);
  EXPECT_EQ(s.max_kld, 999);
  EXPECT_NEAR(s.top1_agreement.value, 0.75, 1e-12);
  EXPECT_NEAR(s.perplexity_ratio.value, std::exp(0.25), 1e-12);
  EXPECT_NEAR(s.reference_perplexity.value, std::exp(1.0), 1e-12);
  ASSERT_TRUE(s.mean_kld.interval);
  EXPECT_LT(s.mean_kld.interval->low, 499.5);
  EXPECT_GT(s.mean_kld.interval->high, 499.5);
  // Figures that are the same in every chunk have no width.
  EXPECT_NEAR(s.perplexity_ratio.interval->low, std::exp(0.25), 1e-12);
  EXPECT_NEAR(s.perplexity_ratio.interval->high, std::exp(0.25), 1e-12);
}

TEST(Summarize, QuantilesAgreeWithSortingAtEverySize) {
  Rng rng(11);
  for (int n = 1; n < 40; ++n) {
    std::vector<std::vector<Position>> chunks(1);
    std::vector<double> sorted;
    for (int i = 0; i < n; ++i) {
      const double x = std::floor(10 * rng.uniform());  // with ties
      chunks[0].push_back({.kld = x});
      sorted.push_back(x);
    }
    std::sort(sorted.begin(), sorted.end());
    const Summary s = summarize(chunks, {});
    EXPECT_NEAR(s.median_kld.value, quantile(sorted, 0.5), 1e-12) << n;
    EXPECT_NEAR(s.p90_kld.value, quantile(sorted, 0.9), 1e-12) << n;
    EXPECT_NEAR(s.p99_kld.value, quantile(sorted, 0.99), 1e-12) << n;
    EXPECT_FALSE(s.mean_kld.interval);  // one chunk: nothing to draw from
  }
}

// The interval of a mean of independent chunks must have the width theory gives, and cover the
// truth about 95 times in 100.
TEST(Summarize, IntervalsCoverTheTruth) {
  Rng rng(5);
  constexpr int kTrials = 200;
  constexpr int kChunks = 60;
  int covered = 0;
  double width = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<std::vector<Position>> chunks(kChunks);
    for (auto& chunk : chunks) {
      const double level = 1 - std::log(1 - rng.uniform());  // shared by the chunk; mean 2, sd 1
      for (int t = 0; t < 5; ++t) chunk.push_back({.kld = level});
    }
    const Summary s = summarize(chunks, {.resamples = 400, .seed = static_cast<uint64_t>(trial)});
    covered += s.mean_kld.interval->low <= 2 && 2 <= s.mean_kld.interval->high;
    width += s.mean_kld.interval->high - s.mean_kld.interval->low;
  }
  EXPECT_GE(covered,
            176);  // 88 %: three standard errors below 92 %, the bootstrap's usual coverage
  EXPECT_LE(covered, 200);
  EXPECT_NEAR(width / kTrials, 2 * 1.96 / std::sqrt(kChunks), 0.05);
}

TEST(Summarize, IsSeeded) {
  const auto chunks = uniform_chunks(7, 30);
  const Summary a = summarize(chunks, {.resamples = 100, .seed = 9});
  const Summary b = summarize(chunks, {.resamples = 100, .seed = 9});
  const Summary c = summarize(chunks, {.resamples = 100, .seed = 10});
  EXPECT_EQ(a.mean_kld.interval->low, b.mean_kld.interval->low);
  EXPECT_EQ(a.p99_kld.interval->high, b.p99_kld.interval->high);
  EXPECT_NE(a.mean_kld.interval->low, c.mean_kld.interval->low);
}

}  // namespace
}  // namespace carat::audit
