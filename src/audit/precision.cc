#include "audit/precision.h"

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"

namespace carat::audit {

void MeanTracker::add(std::span<const Position> chunk) {
  Sum sum;
  for (const Position& p : chunk) sum.kld += p.kld;
  sum.positions = static_cast<double>(chunk.size());
  sums_.push_back(sum);
}

double MeanTracker::mean() const {
  Sum total;
  for (const Sum& s : sums_) {
    total.kld += s.kld;
    total.positions += s.positions;
  }
  return total.positions > 0 ? total.kld / total.positions : 0;
}

double MeanTracker::relative_half_width(const SummaryOptions& options) const {
  CHECK(sums_.size() >= 2);
  const double all = mean();
  if (all <= 0) return 0;
  Rng rng(options.seed);
  std::vector<double> draws;
  for (int64_t r = 0; r < options.resamples; ++r) {
    Sum total;
    for (size_t i = 0; i < sums_.size(); ++i) {
      const Sum& s = sums_[rng.below(sums_.size())];
      total.kld += s.kld;
      total.positions += s.positions;
    }
    draws.push_back(total.kld / total.positions);
  }
  std::sort(draws.begin(), draws.end());
  return (quantile(draws, 0.975) - quantile(draws, 0.025)) / 2 / all;
}

}  // namespace carat::audit
