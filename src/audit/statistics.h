// Figures over many positions, each with a 95 % interval.
//
// Positions of one chunk of text are alike, so they must not be counted as independent: the
// interval is the percentile bootstrap over whole chunks (2.5 % and 97.5 % of the figure over
// `resamples` draws of as many chunks, with replacement, seeded). Quantiles interpolate linearly
// between order statistics: rank p * (n - 1).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "audit/compare.h"

namespace carat::audit {

struct Interval {
  double low = 0;
  double high = 0;
};

// A figure; no interval if there were fewer than two chunks to draw from.
struct Figure {
  double value = 0;
  std::optional<Interval> interval;
};

struct Summary {
  int64_t tokens = 0;  // positions compared
  int64_t chunks = 0;
  Figure mean_kld;
  Figure median_kld;
  Figure p90_kld;
  Figure p99_kld;
  double max_kld = 0;           // a maximum has no useful interval
  Figure top1_agreement;        // share of positions
  Figure perplexity_ratio;      // exp(mean(candidate_nll - reference_nll)), pairing the positions
  Figure reference_perplexity;  // exp(mean(reference_nll))
  Figure candidate_perplexity;
};

struct SummaryOptions {
  int64_t resamples = 1000;
  uint64_t seed = 1;
};

// `chunks` holds the positions of each chunk. REQUIRES: at least one position in all.
[[nodiscard]] Summary summarize(std::span<const std::vector<Position>> chunks,
                                const SummaryOptions& options);

// Linear interpolation at rank p * (n - 1). REQUIRES: `sorted` ascending, not empty; 0 <= p <= 1.
[[nodiscard]] double quantile(std::span<const double> sorted, double p);

}  // namespace carat::audit
