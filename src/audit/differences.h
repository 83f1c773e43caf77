// Two candidates beside each other: differences of their figures over the same positions.
//
// Both are drawn with the same chunks (audit/bootstrap.h; the draws are those of summarize with
// the same options), so that what makes a chunk easy or hard for both does not widen the interval.
// Its ends are percentiles of the difference's draws; the intervals of the two candidates may
// overlap and this one still exclude 0.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "audit/bootstrap.h"
#include "audit/compare.h"
#include "audit/figure.h"
#include "base/thread_pool.h"

namespace carat::audit {

// The candidate's figures less the baseline's, or by them. Without intervals if there is one chunk
// only.
struct Difference {
  size_t reference = 0;  // index into AuditReport::references; set by the caller
  size_t baseline = 0;   // indices of candidates
  size_t candidate = 0;
  Figure mean_kld = {};                  // difference, nats
  std::optional<Figure> kld_ratio = {};  // of the means; none if one of them is 0
  Figure top1_agreement = {};            // difference; no interval if it is 0 in every chunk
  Figure perplexity_ratio = {1, {}};     // exp(mean(candidate_nll - baseline_nll))

  // Whether the interval of the mean KLDs' difference excludes 0; nothing without one.
  std::optional<bool> apart() const;
  // With candidate and baseline exchanged.
  Difference reversed() const;
};

// Every pair, the later candidate less the earlier one: (0, 1), (0, 2), ..., (1, 2), .... Pairs
// with an infinite mean are left out. `candidates` holds the positions of each candidate by chunk;
// `pool` may be null; nothing depends on it. REQUIRES: the same, at least one, positions in all.
[[nodiscard]] std::vector<Difference> paired_differences(
    std::span<const std::span<const std::vector<Position>>> candidates,
    const SummaryOptions& options, ThreadPool* pool = nullptr);

}  // namespace carat::audit
