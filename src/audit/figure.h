// A figure with its 95 % interval.
#pragma once

#include <optional>

namespace carat::audit {

struct Interval {
  double low = 0;
  double high = 0;
};

// No interval where the sample is too small for one: see audit/statistics.h.
struct Figure {
  double value = 0;
  std::optional<Interval> interval;
};

}  // namespace carat::audit
