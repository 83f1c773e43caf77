// How well a mean is known, after every chunk.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "audit/statistics.h"

namespace carat::audit {

// Collects the KLD of chunks.
class MeanTracker {
 public:
  void add(std::span<const Position> chunk);
  int64_t chunks() const { return static_cast<int64_t>(sums_.size()); }
  double mean() const;
  // Half the width of the 95 % percentile bootstrap over chunks, by the mean; 0 for a mean of 0 (a
  // candidate that equals the reference). REQUIRES: two chunks.
  double relative_half_width(const SummaryOptions& options) const;

 private:
  struct Sum {
    double kld = 0;
    double positions = 0;
  };
  std::vector<Sum> sums_;
};

}  // namespace carat::audit
