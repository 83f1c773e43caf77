#include "audit/bootstrap.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>
#include <vector>

namespace carat::audit {
namespace {

TEST(Quantile, InterpolatesBetweenRanks) {
  const std::vector<double> v = {1, 2, 3, 4};
  EXPECT_EQ(quantile(v, 0), 1);
  EXPECT_EQ(quantile(v, 0.5), 2.5);
  EXPECT_EQ(quantile(v, 1), 4);
  EXPECT_NEAR(quantile(v, 0.99), 3.97, 1e-12);
}

TEST(ChunkDraws, DrawsAsManyChunksAsThereAre) {
  const ChunkDraws draws(37, {.resamples = 500, .seed = 4});
  std::vector<int64_t> drawn(37);
  std::set<size_t> seen;
  draws.for_each(nullptr, [&](size_t draw, std::span<const uint32_t> times) {
    EXPECT_EQ(std::accumulate(times.begin(), times.end(), 0u), 37u);
    for (size_t c = 0; c < times.size(); ++c) drawn[c] += times[c];
    seen.insert(draw);
  });
  EXPECT_EQ(seen.size(), 500u);
  // Each chunk once a draw on average; the deviation of the sum of 500 is 22.
  for (const int64_t times : drawn) EXPECT_NEAR(static_cast<double>(times), 500, 120);
}

TEST(ChunkDraws, AreTheSameOnAnyNumberOfThreads) {
  const ChunkDraws draws(11, {.resamples = 333, .seed = 8});
  const auto record = [&](ThreadPool* pool) {
    std::vector<std::vector<uint32_t>> all(333);
    draws.for_each(pool, [&](size_t draw, std::span<const uint32_t> times) {
      all[draw].assign(times.begin(), times.end());
    });
    return all;
  };
  ThreadPool three(3);
  const auto alone = record(nullptr);
  EXPECT_EQ(alone, record(&three));
  EXPECT_NE(alone[0], alone[64]);  // batches go on, they do not begin anew
}

// The multiset is written out and sorted.
TEST(WeightedQuantiles, AgreeWithSortingTheDraw) {
  Rng rng(23);
  const std::vector<double> wanted = {0, 0.25, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
  for (int round = 0; round < 200; ++round) {
    std::vector<std::vector<double>> chunks(1 + rng.below(6));
    std::vector<uint32_t> times;
    std::vector<double> drawn;
    for (auto& chunk : chunks) {
      const uint64_t n = 1 + rng.below(round < 100 ? 8 : 150);
      for (uint64_t i = 0; i < n; ++i) chunk.push_back(std::floor(40 * rng.uniform()));  // ties
      times.push_back(static_cast<uint32_t>(rng.below(4)));
      for (uint32_t t = 0; t < times.back(); ++t) {
        drawn.insert(drawn.end(), chunk.begin(), chunk.end());
      }
    }
    if (drawn.empty()) continue;
    std::sort(drawn.begin(), drawn.end());
    std::vector<double> found(wanted.size());
    weighted_quantiles(rank(chunks), times, wanted, found);
    for (size_t q = 0; q < wanted.size(); ++q) {
      EXPECT_NEAR(found[q], quantile(drawn, wanted[q]), 1e-12) << round << " " << wanted[q];
    }
  }
}

TEST(RatioIntervals, LeaveOutDrawsThatHaveNone) {
  // Only the first of two chunks has the denominator: every draw that has it gives 3.
  ChunkSums sums(2, 2);
  sums.at(0, 0) = 6;
  sums.at(0, 1) = 2;
  const Ratio ratios[] = {{0, 1}, {1, 0, [](double x) { return std::sqrt(x); }}};
  const auto found = ratio_intervals(sums, ratios, ChunkDraws(2, {}), nullptr);
  ASSERT_TRUE(found[0] && found[1]);
  EXPECT_EQ(found[0]->low, 3);
  EXPECT_EQ(found[0]->high, 3);
  EXPECT_NEAR(found[1]->high, std::sqrt(1 / 3.0), 1e-15);
  const auto none = ratio_intervals(ChunkSums(2, 2), ratios, ChunkDraws(2, {}), nullptr);
  EXPECT_FALSE(none[0]);
}

}  // namespace
}  // namespace carat::audit
