#include "audit/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"

namespace carat::audit {
namespace {

// Sums of one chunk: everything but the quantiles follows from them.
struct Sums {
  double kld = 0;
  double reference_nll = 0;
  double candidate_nll = 0;
  int64_t same_top = 0;
  int64_t positions = 0;
};

Sums sum_up(const std::vector<Position>& chunk) {
  Sums s;
  for (const Position& p : chunk) {
    s.kld += p.kld;
    s.reference_nll += p.reference_nll;
    s.candidate_nll += p.candidate_nll;
    s.same_top += p.same_top;
  }
  s.positions = static_cast<int64_t>(chunk.size());
  return s;
}

struct RankedKld {
  double kld;
  size_t chunk;
};

constexpr double kQuantiles[] = {0.5, 0.9, 0.99};

// The figures of one draw of chunks, in the order in which summarize() names them.
enum FigureIndex {
  kMean,
  kMedian,
  kP90,
  kP99,
  kTop1,
  kRatio,
  kReferencePpl,
  kCandidatePpl,
  kCount
};
using Figures = std::array<double, kCount>;

// The quantiles of the multiset in which every position of chunk c appears times[c] times.
void weighted_quantiles(std::span<const RankedKld> ranked, std::span<const int64_t> times,
                        int64_t positions, Figures& out) {
  size_t next = 0;
  int64_t seen = 0;
  double values[std::size(kQuantiles)][2] = {};
  for (const RankedKld& r : ranked) {
    const int64_t before = seen;
    seen += times[r.chunk];
    if (seen == before) continue;
    for (size_t q = next; q < std::size(kQuantiles); ++q) {
      const auto rank = static_cast<int64_t>(kQuantiles[q] * static_cast<double>(positions - 1));
      for (int64_t k = 0; k < 2; ++k) {
        const int64_t wanted = std::min(rank + k, positions - 1);
        if (wanted >= before && wanted < seen) values[q][k] = r.kld;
      }
      if (rank + 1 < seen) next = q + 1;
    }
    if (next == std::size(kQuantiles)) break;
  }
  for (size_t q = 0; q < std::size(kQuantiles); ++q) {
    const double rank = kQuantiles[q] * static_cast<double>(positions - 1);
    const double fraction = rank - std::floor(rank);
    const double low = values[q][0];
    const double high = values[q][1];
    out[kMedian + q] = fraction > 0 ? low + fraction * (high - low) : low;
  }
}

Figures figures_of(std::span<const Sums> sums, std::span<const RankedKld> ranked,
                   std::span<const int64_t> times) {
  Sums total;
  for (size_t c = 0; c < sums.size(); ++c) {
    const auto n = static_cast<double>(times[c]);
    total.kld += n * sums[c].kld;
    total.reference_nll += n * sums[c].reference_nll;
    total.candidate_nll += n * sums[c].candidate_nll;
    total.same_top += times[c] * sums[c].same_top;
    total.positions += times[c] * sums[c].positions;
  }
  const auto n = static_cast<double>(total.positions);
  Figures f{};
  weighted_quantiles(ranked, times, total.positions, f);
  f[kMean] = total.kld / n;
  f[kTop1] = static_cast<double>(total.same_top) / n;
  f[kRatio] = std::exp((total.candidate_nll - total.reference_nll) / n);
  f[kReferencePpl] = std::exp(total.reference_nll / n);
  f[kCandidatePpl] = std::exp(total.candidate_nll / n);
  return f;
}

// Percentile intervals of every figure over draws of chunks with replacement.
std::array<Interval, kCount> bootstrap(std::span<const Sums> sums,
                                       std::span<const RankedKld> ranked,
                                       const SummaryOptions& options) {
  Rng rng(options.seed);
  std::array<std::vector<double>, kCount> draws;
  std::vector<int64_t> times(sums.size());
  for (int64_t r = 0; r < options.resamples; ++r) {
    std::fill(times.begin(), times.end(), 0);
    for (size_t i = 0; i < sums.size(); ++i) ++times[rng.below(sums.size())];
    const Figures f = figures_of(sums, ranked, times);
    for (size_t k = 0; k < kCount; ++k) draws[k].push_back(f[k]);
  }
  std::array<Interval, kCount> intervals;
  for (size_t k = 0; k < kCount; ++k) {
    std::sort(draws[k].begin(), draws[k].end());
    intervals[k] = {quantile(draws[k], 0.025), quantile(draws[k], 0.975)};
  }
  return intervals;
}

}  // namespace

double quantile(std::span<const double> sorted, double p) {
  CHECK(!sorted.empty() && p >= 0 && p <= 1);
  const double rank = p * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(rank);
  const double fraction = rank - std::floor(rank);
  if (fraction == 0) return sorted[low];
  return sorted[low] + fraction * (sorted[low + 1] - sorted[low]);
}

Summary summarize(std::span<const std::vector<Position>> chunks, const SummaryOptions& options) {
  CHECK(options.resamples > 0);
  std::vector<Sums> sums;
  std::vector<RankedKld> ranked;
  for (const std::vector<Position>& chunk : chunks) {
    if (chunk.empty()) continue;
    for (const Position& p : chunk) ranked.push_back({p.kld, sums.size()});
    sums.push_back(sum_up(chunk));
  }
  CHECK(!sums.empty());
  std::sort(ranked.begin(), ranked.end(),
            [](const RankedKld& a, const RankedKld& b) { return a.kld < b.kld; });

  const std::vector<int64_t> once(sums.size(), 1);
  const Figures f = figures_of(sums, ranked, once);
  std::array<Figure, kCount> figures;
  for (size_t k = 0; k < kCount; ++k) figures[k].value = f[k];
  if (sums.size() > 1) {
    const auto intervals = bootstrap(sums, ranked, options);
    for (size_t k = 0; k < kCount; ++k) figures[k].interval = intervals[k];
  }
  return {.tokens = static_cast<int64_t>(ranked.size()),
          .chunks = static_cast<int64_t>(sums.size()),
          .mean_kld = figures[kMean],
          .median_kld = figures[kMedian],
          .p90_kld = figures[kP90],
          .p99_kld = figures[kP99],
          .max_kld = ranked.back().kld,
          .top1_agreement = figures[kTop1],
          .perplexity_ratio = figures[kRatio],
          .reference_perplexity = figures[kReferencePpl],
          .candidate_perplexity = figures[kCandidatePpl]};
}

}  // namespace carat::audit
