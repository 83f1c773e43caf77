#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/error.h"

namespace carat::engine {
namespace {

std::vector<float> random_logits(int64_t n, uint64_t seed = 3) {
  Rng rng(seed);
  std::vector<float> z;
  for (int64_t i = 0; i < n; ++i) z.push_back(static_cast<float>(2 * rng.normal()));
  return z;
}

SamplingOptions plain() {
  SamplingOptions o;
  o.top_k = 0;
  o.top_p = 1;
  return o;
}

// What the documented steps leave, by sorting everything.
std::map<int32_t, double> expected_distribution(const std::vector<float>& logits,
                                                const SamplingOptions& o) {
  std::vector<std::pair<double, int32_t>> sorted;
  for (size_t i = 0; i < logits.size(); ++i) {
    const bool gone = std::count(o.suppress_ids.begin(), o.suppress_ids.end(), static_cast<int>(i));
    if (!gone) sorted.emplace_back(-static_cast<double>(logits[i]) / o.temperature, i);
  }
  std::sort(sorted.begin(), sorted.end());
  if (o.top_k > 0) sorted.resize(std::min(sorted.size(), static_cast<size_t>(o.top_k)));
  double total = 0;
  for (const auto& [z, id] : sorted) total += std::exp(-z);
  double mass = 0;
  size_t n = 0;
  while (n < sorted.size() && mass < o.top_p * total) mass += std::exp(-sorted[n++].first);
  sorted.resize(n);
  std::map<int32_t, double> p;
  double left = 0;
  for (const auto& [z, id] : sorted) {
    if (std::exp(sorted[0].first - z) < o.min_p) continue;
    left += p[id] = std::exp(-z);
  }
  for (auto& [id, v] : p) v /= left;
  return p;
}

void expect_distribution(const SamplingOptions& o, int64_t n) {
  const std::vector<float> logits = random_logits(n);
  const std::map<int32_t, double> expected = expected_distribution(logits, o);
  Sampler sampler(o, n);
  std::map<int32_t, double> got;
  constexpr int kDraws = 8000;
  for (int i = 0; i < kDraws; ++i) got[sampler.sample(logits, {})] += 1.0 / kDraws;
  for (const auto& [id, p] : got) EXPECT_TRUE(expected.contains(id)) << id;
  for (const auto& [id, p] : expected) {
    const double deviation = std::sqrt(p * (1 - p) / kDraws);
    EXPECT_NEAR(got[id], p, 5 * deviation + 1e-4) << id;
  }
}

TEST(Sampler, DrawsFromTheDocumentedDistribution) {
  SamplingOptions o = plain();
  expect_distribution(o, 50);
  o.temperature = 0.7f;
  expect_distribution(o, 50);
  o.top_k = 8;
  expect_distribution(o, 50);
  o.top_p = 0.8f;
  expect_distribution(o, 50);
  o.min_p = 0.15f;
  expect_distribution(o, 50);
  o.top_k = 0;
  expect_distribution(o, 50);
  o.suppress_ids = {3, 17};
  expect_distribution(o, 50);
  o.min_p = 0;
  o.temperature = 3;
  o.top_p = 0.99f;  // hundreds stay
  expect_distribution(o, 400);
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  SamplingOptions o = plain();
  o.temperature = 0;
  Sampler sampler(o, 5);
  EXPECT_EQ(sampler.sample(std::vector<float>{0, 3, 1, 3, 2}, {}), 1);
}

TEST(Sampler, TopKOfOneIsGreedyAndTiesGoToTheLowerId) {
  SamplingOptions o = plain();
  o.top_k = 1;
  Sampler sampler(o, 5);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(sampler.sample(std::vector<float>{0, 1, 3, 3, 3}, {}), 2);
  }
}

TEST(Sampler, SuppressedTokensNeverCome) {
  SamplingOptions o = plain();
  o.temperature = 0;
  o.suppress_ids = {1};
  Sampler sampler(o, 3);
  EXPECT_EQ(sampler.sample(std::vector<float>{0, 9, 1}, {}), 2);
}

TEST(Sampler, RepeatPenaltyLooksAtTheLastTokens) {
  SamplingOptions o = plain();
  o.temperature = 0;
  o.repeat_penalty = 2;
  o.repeat_window = 2;
  Sampler sampler(o, 4);
  const std::vector<float> logits = {4, 3, -1, -1.5f};
  EXPECT_EQ(sampler.sample(logits, std::vector<int32_t>{}), 0);
  EXPECT_EQ(sampler.sample(logits, std::vector<int32_t>{0}), 1);        // 2 against 3
  EXPECT_EQ(sampler.sample(logits, std::vector<int32_t>{0, 0, 1}), 0);  // 2 against 1.5
  EXPECT_EQ(sampler.sample(logits, std::vector<int32_t>{0, 2, 3}), 0);  // out of the window
  // A negative logit moves down.
  EXPECT_EQ(sampler.sample(std::vector<float>{-9, -9, -1, -1.5f}, std::vector<int32_t>{2}), 3);
}

TEST(Sampler, SameSeedSameTokens) {
  const std::vector<float> logits = random_logits(300);
  SamplingOptions o;
  o.seed = 11;
  Sampler a(o, 300), b(o, 300);
  o.seed = 12;
  Sampler c(o, 300);
  int different = 0;
  for (int i = 0; i < 100; ++i) {
    const int32_t id = a.sample(logits, {});
    EXPECT_EQ(id, b.sample(logits, {}));
    different += id != c.sample(logits, {});
  }
  EXPECT_GT(different, 50);
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  const auto refused = [](auto edit) {
    SamplingOptions o;
    edit(o);
    EXPECT_THROW(Sampler(o, 10), Error);
  };
  refused([](SamplingOptions& o) { o.temperature = -1; });
  refused([](SamplingOptions& o) { o.temperature = std::numeric_limits<float>::quiet_NaN(); });
  refused([](SamplingOptions& o) { o.top_k = -1; });
  refused([](SamplingOptions& o) { o.top_p = 0; });
  refused([](SamplingOptions& o) { o.top_p = 1.5f; });
  refused([](SamplingOptions& o) { o.min_p = 2; });
  refused([](SamplingOptions& o) { o.repeat_penalty = 0; });
  refused([](SamplingOptions& o) { o.suppress_ids = {10}; });
}

TEST(Sampler, RefusesLogitsThatAreNoNumbers) {
  Sampler sampler(plain(), 2);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW((void)sampler.sample(std::vector<float>{nan, nan}, {}), Error);
  EXPECT_EQ(sampler.sample(std::vector<float>{nan, 1}, {}), 1);
}

}  // namespace
}  // namespace carat::engine
