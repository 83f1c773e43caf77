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

// Of the opposite difference; never -0 of 0.
[[nodiscard]] inline Figure negated(const Figure& f) {
  Figure out{0 - f.value, {}};
  if (f.interval) out.interval = {0 - f.interval->high, 0 - f.interval->low};
  return out;
}

// Of the opposite ratio.
[[nodiscard]] inline Figure inverted(const Figure& f) {
  Figure out{1 / f.value, {}};
  if (f.interval) out.interval = {1 / f.interval->high, 1 / f.interval->low};
  return out;
}

// Whether the interval has 0 outside; nothing without one.
[[nodiscard]] inline std::optional<bool> excludes_zero(const Figure& f) {
  if (!f.interval) return std::nullopt;
  return f.interval->low > 0 || f.interval->high < 0;
}

}  // namespace carat::audit
