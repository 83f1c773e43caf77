#include "audit/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace carat::audit {
namespace {

using Chunks = std::vector<std::vector<Position>>;

Position plain(double kld, bool same_top = true) {
  Position p;
  p.kld = kld;
  p.reference_nll = 1;
  p.candidate_nll = 1.25;
  p.index = 1;
  p.reference_top[0] = {7, 0.5f};
  p.candidate_top[0] = {same_top ? 7 : 8, 0.5f};
  return p;
}

Chunks uniform_chunks(int chunks, int length) {
  Chunks out;
  int i = 0;
  const int n = chunks * length;
  for (int c = 0; c < chunks; ++c) {
    std::vector<Position> chunk;
    for (int t = 0; t < length; ++t, ++i) {
      // Every value of 0..n-1 once, spread over the chunks.
      const int rank = (i * 7919) % n;
      chunk.push_back(plain(rank, rank % 4 != 0));
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
  EXPECT_NEAR(s.p999_kld.value, 998.001, 1e-9);
  EXPECT_EQ(s.max_kld, 999);
  EXPECT_NEAR(s.top1_agreement.value, 0.75, 1e-12);
  EXPECT_NEAR(s.perplexity_ratio.value, std::exp(0.25), 1e-12);
  EXPECT_NEAR(s.reference_perplexity.value, std::exp(1.0), 1e-12);
  EXPECT_NEAR(s.mean_delta_p.value, std::exp(-1.25) - std::exp(-1.0), 1e-12);
  EXPECT_NEAR(s.rms_delta_p.value, std::exp(-1.0) - std::exp(-1.25), 1e-12);
  ASSERT_TRUE(s.mean_kld.interval);
  EXPECT_LT(s.mean_kld.interval->low, 499.5);
  EXPECT_GT(s.mean_kld.interval->high, 499.5);
  // Figures that are the same in every chunk have no width.
  EXPECT_NEAR(s.perplexity_ratio.interval->low, std::exp(0.25), 1e-12);
  EXPECT_NEAR(s.perplexity_ratio.interval->high, std::exp(0.25), 1e-12);
}

TEST(Summarize, HasNoIntervalWhereTheSampleIsTooSmall) {
  const Summary one = summarize(uniform_chunks(1, 2000), {});
  for (const FigureKey& f : figure_keys()) EXPECT_FALSE((one.*f.figure).interval) << f.key;
  // Ten positions beyond the quantile, to the position.
  const auto p99 = [](int length) { return summarize(uniform_chunks(9, length), {}).p99_kld; };
  EXPECT_FALSE(p99(111).interval);
  EXPECT_TRUE(p99(112).interval);
  EXPECT_TRUE(summarize(uniform_chunks(10, 1000), {}).p999_kld.interval);
  EXPECT_FALSE(summarize(uniform_chunks(9, 1111), {}).p999_kld.interval);
  // No flip was seen: how rare they are cannot be said.
  Chunks same(20, std::vector<Position>(30, plain(0.5)));
  EXPECT_EQ(summarize(same, {}).top1_agreement.value, 1);
  EXPECT_FALSE(summarize(same, {}).top1_agreement.interval);
  same[3][4] = plain(0.5, false);
  EXPECT_TRUE(summarize(same, {}).top1_agreement.interval);
}

TEST(Summarize, SkipsChunksWithoutPositions) {
  Chunks chunks = uniform_chunks(6, 20);
  const Summary whole = summarize(chunks, {});
  chunks.insert(chunks.begin() + 2, std::vector<Position>());
  const Summary same = summarize(chunks, {});
  EXPECT_EQ(same.chunks, 6);
  EXPECT_EQ(same.mean_kld.interval->low, whole.mean_kld.interval->low);
}

TEST(Summarize, QuantilesAgreeWithSortingAtEverySize) {
  Rng rng(11);
  for (int n = 1; n < 40; ++n) {
    Chunks chunks(1);
    std::vector<double> sorted;
    for (int i = 0; i < n; ++i) {
      const double x = std::floor(10 * rng.uniform());  // with ties
      chunks[0].push_back(plain(x));
      sorted.push_back(x);
    }
    std::sort(sorted.begin(), sorted.end());
    const Summary s = summarize(chunks, {});
    EXPECT_NEAR(s.median_kld.value, quantile(sorted, 0.5), 1e-12) << n;
    EXPECT_NEAR(s.p90_kld.value, quantile(sorted, 0.9), 1e-12) << n;
    EXPECT_NEAR(s.p99_kld.value, quantile(sorted, 0.99), 1e-12) << n;
  }
}

// Chunks of `length` positions whose divergence is what the chunk has in common, exponential with
// mean 1, times `shared`, and as much of its own noise.
Chunks exponential_chunks(Rng& rng, int count, int length, double shared) {
  Chunks chunks(static_cast<size_t>(count));
  for (auto& chunk : chunks) {
    const double level = -std::log(1 - rng.uniform());
    for (int t = 0; t < length; ++t) {
      chunk.push_back(plain(shared * level - (1 - shared) * std::log(1 - rng.uniform())));
    }
  }
  return chunks;
}

// With nothing shared the interval of the mean is that of the normal formula.
TEST(Summarize, IntervalOfIndependentPositionsIsTheNormalOne) {
  Rng rng(7);
  const Chunks chunks = exponential_chunks(rng, 200, 50, 0);
  double sum = 0, squares = 0;
  for (const auto& chunk : chunks) {
    for (const Position& p : chunk) {
      sum += p.kld;
      squares += p.kld * p.kld;
    }
  }
  const double n = 200 * 50;
  const double half = 1.96 * std::sqrt((squares / n - sum * sum / n / n) / n);
  const Figure mean = summarize(chunks, {.resamples = 2000, .seed = 1}).mean_kld;
  EXPECT_NEAR(mean.value, sum / n, 1e-12);
  EXPECT_NEAR(mean.interval->high - mean.value, half, 0.2 * half);
  EXPECT_NEAR(mean.value - mean.interval->low, half, 0.2 * half);
}

// What the formula for independent positions would claim is three times too narrow here; the
// bootstrap over chunks covers the truth about as often as it should.
TEST(Summarize, IntervalsCoverTheTruthOfCorrelatedChunks) {
  Rng rng(5);
  constexpr int kTrials = 200;
  int covered = 0, median_covered = 0, naive_covered = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const Chunks chunks = exponential_chunks(rng, 60, 20, 0.5);
    const Summary s = summarize(chunks, {.resamples = 400, .seed = static_cast<uint64_t>(trial)});
    double squares = 0;
    for (const auto& chunk : chunks) {
      for (const Position& p : chunk) squares += std::pow(p.kld - s.mean_kld.value, 2);
    }
    const double half = 1.96 * std::sqrt(squares) / static_cast<double>(s.tokens);
    const auto holds = [](const Interval& i, double x) { return i.low <= x && x <= i.high; };
    covered += holds(*s.mean_kld.interval, 1);
    // Half the sum of two unit exponentials: 1 - e^-2x (1 + 2x) = 1/2.
    median_covered += holds(*s.median_kld.interval, 0.8391735);
    naive_covered += std::abs(s.mean_kld.value - 1) <= half;
  }
  // 92 %, what bootstraps reach with so few chunks, less three standard errors.
  EXPECT_GE(covered, 172);
  EXPECT_GE(median_covered, 172);
  EXPECT_LE(naive_covered, 140);
}

// Bins partition the positions, and their figures are those of the positions in them alone.
TEST(Summarize, BreaksDownByEveryAxis) {
  Rng rng(31);
  Chunks chunks(12);
  std::vector<int32_t> domains;
  for (size_t c = 0; c < chunks.size(); ++c) {
    domains.push_back(static_cast<int32_t>(c % 3));
    for (int t = 1; t <= 40; ++t) {
      Position p = plain(rng.uniform(), rng.uniform() < 0.8);
      p.index = t;
      p.entropy = static_cast<float>(5 * rng.uniform());
      p.reference_top[0].probability = static_cast<float>(0.5 + 0.5 * rng.uniform());
      p.reference_top[1] = {1, static_cast<float>(0.5 * rng.uniform())};
      chunks[c].push_back(p);
    }
  }
  Summary s = summarize(chunks, {}, domains);
  for (const Axis axis : kAxes) {
    int64_t tokens = 0;
    for (const Bin& bin : s.breakdown.of(axis)) {
      double kld = 0;
      int64_t n = 0, flips = 0;
      for (size_t c = 0; c < chunks.size(); ++c) {
        for (const Position& p : chunks[c]) {
          const double x = axis == Axis::kMargin     ? p.margin()
                           : axis == Axis::kEntropy  ? p.entropy
                           : axis == Axis::kPosition ? p.index
                                                     : domains[c];
          if (x < bin.from || x >= bin.to) continue;
          kld += p.kld;
          flips += !p.same_top();
          ++n;
        }
      }
      EXPECT_EQ(bin.tokens, n);
      EXPECT_EQ(bin.flips, flips);
      EXPECT_NEAR(bin.mean_kld.value, kld / static_cast<double>(n), 1e-12);
      EXPECT_NEAR(bin.top1_agreement.value, 1 - static_cast<double>(flips) / static_cast<double>(n),
                  1e-12);
      EXPECT_EQ(bin.mean_kld.interval.has_value(), bin.chunks >= kFewestChunksOfABin);
      tokens += n;
    }
    EXPECT_EQ(tokens, s.tokens);
  }
  EXPECT_EQ(s.breakdown.by_position.size(), 6u);  // 1, 2, 4, 8, 16, 32 to 40
  EXPECT_EQ(s.breakdown.by_domain.size(), 3u);
  EXPECT_EQ(s.breakdown.by_domain[1].chunks, 4);  // too few for an interval
  EXPECT_TRUE(s.breakdown.by_position[3].mean_kld.interval);
  EXPECT_TRUE(summarize(chunks, {}).breakdown.by_domain.empty());
}

TEST(Summarize, DoesNotDependOnThreads) {
  Rng rng(2);
  const Chunks chunks = exponential_chunks(rng, 30, 40, 0.5);
  ThreadPool pool(3);
  const Summary alone = summarize(chunks, {});
  const Summary together = summarize(chunks, {}, {}, &pool);
  for (const FigureKey& f : figure_keys()) {
    const Figure& a = alone.*f.figure;
    const Figure& b = together.*f.figure;
    EXPECT_EQ(a.value, b.value) << f.key;
    ASSERT_EQ(a.interval.has_value(), b.interval.has_value()) << f.key;
    if (!a.interval) continue;
    EXPECT_EQ(a.interval->low, b.interval->low) << f.key;
    EXPECT_EQ(a.interval->high, b.interval->high) << f.key;
  }
}

TEST(Summarize, IsSeeded) {
  const Chunks chunks = uniform_chunks(7, 150);
  const Summary a = summarize(chunks, {.resamples = 100, .seed = 9});
  const Summary b = summarize(chunks, {.resamples = 100, .seed = 9});
  const Summary c = summarize(chunks, {.resamples = 100, .seed = 10});
  EXPECT_EQ(a.mean_kld.interval->low, b.mean_kld.interval->low);
  EXPECT_EQ(a.p99_kld.interval->high, b.p99_kld.interval->high);
  EXPECT_NE(a.mean_kld.interval->low, c.mean_kld.interval->low);
}

}  // namespace
}  // namespace carat::audit
