#include "audit/differences.h"

#include <gtest/gtest.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <vector>

#include "audit/statistics.h"
#include "base/rng.h"

namespace carat::audit {
namespace {

using Chunks = std::vector<std::vector<Position>>;

// Chunks that differ much from each other, as texts do.
Chunks uneven_chunks(int count, uint64_t seed = 3) {
  Rng rng(seed);
  Chunks chunks(static_cast<size_t>(count));
  for (size_t c = 0; c < chunks.size(); ++c) {
    const double level = std::exp(4 * rng.uniform());
    for (size_t i = 0; i < 10 + c % 7; ++i) {
      Position p;
      p.kld = level * rng.uniform();
      p.reference_nll = 2;
      p.candidate_nll = 2 + level * (rng.uniform() - 0.4);
      p.index = static_cast<int32_t>(i) + 1;
      p.reference_top[0] = {7, 0.5f};
      p.candidate_top[0] = {rng.uniform() < 0.8 ? 7 : 8, 0.5f};
      chunks[c].push_back(p);
    }
  }
  return chunks;
}

template <class F>
Chunks changed(Chunks chunks, F change) {
  for (auto& chunk : chunks) {
    for (Position& p : chunk) change(p);
  }
  return chunks;
}

std::vector<Difference> differences(std::initializer_list<Chunks> candidates,
                                    const SummaryOptions& options = {}, ThreadPool* pool = {}) {
  const std::vector<std::span<const std::vector<Position>>> spans(candidates.begin(),
                                                                  candidates.end());
  return paired_differences(spans, options, pool);
}

double width(const Figure& f) { return f.interval->high - f.interval->low; }

TEST(Differences, AConstantAtEveryTokenIsCertain) {
  const Chunks a = uneven_chunks(25);
  const Chunks b = changed(a, [](Position& p) {
    p.kld += 0.25;
    p.candidate_nll += 0.125;
  });
  const Summary first = summarize(a, {}), second = summarize(b, {});
  ASSERT_GT(first.mean_kld.interval->high, second.mean_kld.interval->low + 1);  // they overlap
  const auto found = differences({a, b});
  ASSERT_EQ(found.size(), 1u);
  const Difference& d = found[0];
  EXPECT_EQ(d.baseline, 0u);
  EXPECT_EQ(d.candidate, 1u);
  EXPECT_NEAR(d.mean_kld.value, 0.25, 1e-12);
  EXPECT_NEAR(d.mean_kld.interval->low, 0.25, 1e-12);
  EXPECT_NEAR(d.mean_kld.interval->high, 0.25, 1e-12);
  EXPECT_EQ(d.apart(), true);
  EXPECT_NEAR(d.perplexity_ratio.value, std::exp(0.125), 1e-12);
  EXPECT_NEAR(width(d.perplexity_ratio), 0, 1e-12);
  EXPECT_GT(d.kld_ratio->interval->low, 1);
  EXPECT_GT(width(*d.kld_ratio), 0);
}

TEST(Differences, AConstantFactorIsCertainToo) {
  const Chunks a = uneven_chunks(25);
  const auto found = differences({a, changed(a, [](Position& p) { p.kld *= 1.03; })});
  ASSERT_TRUE(found[0].kld_ratio);
  EXPECT_NEAR(found[0].kld_ratio->value, 1.03, 1e-12);
  EXPECT_NEAR(found[0].kld_ratio->interval->low, 1.03, 1e-12);
  EXPECT_NEAR(found[0].kld_ratio->interval->high, 1.03, 1e-12);
  EXPECT_GT(width(found[0].mean_kld), 0);
  EXPECT_EQ(found[0].apart(), true);
}

TEST(Differences, OfEqualCandidatesAreExactlyZero) {
  const Chunks a = uneven_chunks(25);
  const Difference d = differences({a, a})[0];
  EXPECT_EQ(d.mean_kld.value, 0);
  EXPECT_EQ(d.mean_kld.interval->low, 0);
  EXPECT_EQ(d.mean_kld.interval->high, 0);
  EXPECT_EQ(d.apart(), false);
  EXPECT_EQ(d.kld_ratio->value, 1);
  EXPECT_EQ(d.perplexity_ratio.value, 1);
  EXPECT_EQ(d.top1_agreement.value, 0);
  EXPECT_FALSE(d.top1_agreement.interval);  // no flip told them apart: how rare that is, who knows
}

TEST(Differences, TurnRoundWithTheOrder) {
  const Chunks a = uneven_chunks(25, 1), b = uneven_chunks(25, 2);
  const Difference forth = differences({a, b})[0], back = differences({b, a})[0];
  const Difference turned = forth.reversed();
  EXPECT_EQ(turned.baseline, 1u);
  EXPECT_EQ(turned.candidate, 0u);
  const auto same = [](const Figure& x, const Figure& y) {
    EXPECT_NEAR(x.value, y.value, 1e-12);
    EXPECT_NEAR(x.interval->low, y.interval->low, 1e-12);
    EXPECT_NEAR(x.interval->high, y.interval->high, 1e-12);
  };
  EXPECT_NEAR(back.mean_kld.interval->low, -forth.mean_kld.interval->high, 1e-12);
  EXPECT_NEAR(back.mean_kld.interval->high, -forth.mean_kld.interval->low, 1e-12);
  same(turned.mean_kld, back.mean_kld);
  same(*turned.kld_ratio, *back.kld_ratio);
  same(turned.top1_agreement, back.top1_agreement);
  same(turned.perplexity_ratio, back.perplexity_ratio);
  EXPECT_EQ(turned.apart(), back.apart());
  EXPECT_FALSE(std::signbit(differences({a, a})[0].reversed().mean_kld.value));
}

// One of two flips at a few positions more, in some chunks.
TEST(Differences, CountChangedFirstChoices) {
  const Chunks a = uneven_chunks(20);
  Chunks b = a;
  double lost = 0, positions = 0;
  for (size_t c = 0; c < b.size(); ++c) {
    positions += static_cast<double>(b[c].size());
    if (c % 3 != 0) continue;
    lost += b[c][4].same_top();
    b[c][4].candidate_top[0].token = 9;
  }
  const Difference d = differences({a, b})[0];
  EXPECT_NEAR(d.top1_agreement.value, -lost / positions, 1e-12);
  ASSERT_TRUE(d.top1_agreement.interval);
  EXPECT_LT(d.top1_agreement.interval->low, -lost / positions);
  EXPECT_LE(d.top1_agreement.interval->high, 0);
}

TEST(Differences, HaveEveryPairAndNoneWithInfinity) {
  const Chunks a = uneven_chunks(8, 1), b = uneven_chunks(8, 2);
  Chunks far = b;
  far[3][2].kld = std::numeric_limits<double>::infinity();
  const auto found = differences({a, far, b, a});
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].candidate, 2u);
  EXPECT_EQ(found[1].candidate, 3u);
  EXPECT_EQ(found[1].mean_kld.value, 0);
  EXPECT_EQ(found[2].baseline, 2u);
  EXPECT_NEAR(found[0].mean_kld.value,
              summarize(b, {}).mean_kld.value - summarize(a, {}).mean_kld.value, 1e-12);
  EXPECT_EQ(found[2].mean_kld.value, -found[0].mean_kld.value);
}

// The reference itself: a difference from it is the other's own figure, drawn alike.
TEST(Differences, FromTheReferenceItself) {
  const Chunks b = uneven_chunks(25);
  const Chunks same = changed(b, [](Position& p) {
    p.kld = 0;
    p.candidate_nll = p.reference_nll;
    p.candidate_top = p.reference_top;
  });
  const Difference d = differences({same, b})[0];
  const Summary s = summarize(b, {});
  EXPECT_EQ(d.mean_kld.value, s.mean_kld.value);
  EXPECT_EQ(d.mean_kld.interval->low, s.mean_kld.interval->low);
  EXPECT_EQ(d.mean_kld.interval->high, s.mean_kld.interval->high);
  EXPECT_NEAR(d.perplexity_ratio.value, s.perplexity_ratio.value, 1e-12);
  // Interpolated between the logarithms of two draws, not between the draws.
  EXPECT_NEAR(d.perplexity_ratio.interval->high / s.perplexity_ratio.interval->high, 1, 1e-4);
  EXPECT_NEAR(d.top1_agreement.value, s.top1_agreement.value - 1, 1e-12);
  EXPECT_FALSE(d.kld_ratio);
}

TEST(Differences, AreUnknownOfOneChunk) {
  const Chunks a = uneven_chunks(1);
  Chunks b = changed(a, [](Position& p) { p.kld += 1; });
  const Difference d = differences({a, b})[0];
  EXPECT_NEAR(d.mean_kld.value, 1, 1e-12);
  EXPECT_FALSE(d.mean_kld.interval);
  EXPECT_FALSE(d.apart().has_value());
  EXPECT_FALSE(d.kld_ratio->interval);
  EXPECT_FALSE(d.perplexity_ratio.interval);
  // Chunks that nothing was compared in do not count.
  b.insert(b.begin(), std::vector<Position>());
  Chunks padded = a;
  padded.insert(padded.begin(), std::vector<Position>());
  EXPECT_FALSE(differences({padded, b})[0].mean_kld.interval);
}

TEST(Differences, AreTheSameOnAnyNumberOfThreads) {
  const Chunks a = uneven_chunks(30, 1), b = uneven_chunks(30, 2);
  const SummaryOptions options = {.resamples = 333, .seed = 9};
  ThreadPool three(3);
  const Difference alone = differences({a, b}, options)[0];
  const Difference many = differences({a, b}, options, &three)[0];
  EXPECT_EQ(alone.mean_kld.interval->low, many.mean_kld.interval->low);
  EXPECT_EQ(alone.mean_kld.interval->high, many.mean_kld.interval->high);
  EXPECT_EQ(alone.kld_ratio->interval->low, many.kld_ratio->interval->low);
  EXPECT_EQ(alone.top1_agreement.interval->high, many.top1_agreement.interval->high);
  EXPECT_EQ(alone.perplexity_ratio.interval->low, many.perplexity_ratio.interval->low);
}

// Candidates whose divergences follow the text alike: separate intervals nearly always overlap,
// the paired one holds the true difference about as often as it should and finds it.
TEST(Differences, CoverTheTruthOfCandidatesThatFollowTheText) {
  Rng rng(5);
  constexpr int kTrials = 100;
  constexpr double kTruth = 0.1;
  int covered = 0, apart = 0, overlapping = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    Chunks a(60), b(60);
    for (size_t c = 0; c < a.size(); ++c) {
      const double level = -std::log(1 - rng.uniform());
      for (int t = 0; t < 20; ++t) {
        Position p;
        const double shared = level - std::log(1 - rng.uniform());
        p.kld = shared + rng.uniform();
        a[c].push_back(p);
        p.kld = shared + kTruth + rng.uniform();
        b[c].push_back(p);
      }
    }
    const SummaryOptions options = {.resamples = 300, .seed = static_cast<uint64_t>(trial)};
    const Difference d = differences({a, b}, options)[0];
    covered += d.mean_kld.interval->low <= kTruth && kTruth <= d.mean_kld.interval->high;
    apart += d.apart() == true;
    overlapping += summarize(a, options).mean_kld.interval->high >=
                   summarize(b, options).mean_kld.interval->low;
  }
  EXPECT_GE(covered, 86);  // 95 %, less four standard errors
  EXPECT_GE(apart, 95);
  EXPECT_EQ(overlapping, kTrials);
}

}  // namespace
}  // namespace carat::audit
