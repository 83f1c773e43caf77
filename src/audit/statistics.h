// Figures over many positions, each with a 95 % interval.
//
// Intervals are percentile bootstraps over whole chunks (audit/bootstrap.h). A figure has none
// where the sample is too small for one: with fewer than two chunks; a quantile p unless
// kFewestBeyond positions are expected beyond it, n (1 - p); a share that is 0 or 1, for a
// bootstrap cannot know what was never seen; in a bin, with positions in fewer than
// kFewestChunksOfABin chunks. Quantiles interpolate linearly between order statistics: rank p * (n
// - 1).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "audit/bootstrap.h"
#include "audit/breakdown.h"
#include "audit/compare.h"
#include "audit/figure.h"
#include "base/thread_pool.h"

namespace carat::audit {

struct Summary {
  int64_t tokens = 0;  // positions compared
  int64_t chunks = 0;  // that have any
  Figure mean_kld;
  Figure median_kld;
  Figure p90_kld;
  Figure p99_kld;
  Figure p999_kld;              // 99.9 %
  double max_kld = 0;           // a maximum has no useful interval
  Figure perplexity_ratio;      // exp(mean(candidate_nll - reference_nll)), pairing the positions
  Figure reference_perplexity;  // exp(mean(reference_nll))
  Figure candidate_perplexity;
  Figure reference_entropy;  // mean, nats
  Figure mean_delta_p;       // of the probability of the token that follows
  Figure rms_delta_p;        // root of the mean square of that
  Figure top1_agreement;     // share of positions with the same most likely token
  Figure top5_agreement;     // mean share of the reference's five in the candidate's five
  Breakdown breakdown;
  std::vector<HistogramBin> kld_histogram;
};

// Every figure with an interval, by its key in the JSON.
struct FigureKey {
  const char* key;
  Figure Summary::*figure;
};
[[nodiscard]] std::span<const FigureKey> figure_keys();

inline constexpr int64_t kFewestBeyond = 10;

// `chunks` holds the positions of each chunk; `domains`, if not empty, the domain of each chunk,
// ascending from 0. `pool` may be null; nothing depends on it. REQUIRES: at least one position in
// all, with indices.
[[nodiscard]] Summary summarize(std::span<const std::vector<Position>> chunks,
                                const SummaryOptions& options,
                                std::span<const int32_t> domains = {}, ThreadPool* pool = nullptr);

}  // namespace carat::audit
