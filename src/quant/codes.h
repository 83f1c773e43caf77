// Rounding a float to a small integer code, defined for every input.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/half.h"

namespace carat::quant {

// Truncates towards zero, then clamps to [lo, hi]; NaN gives lo.
[[nodiscard]] inline int truncate_clamped(float x, int lo, int hi) noexcept {
  if (!(x > static_cast<float>(lo))) return lo;
  if (x >= static_cast<float>(hi)) return hi;
  return static_cast<int>(x);
}

// Rounds to nearest, halves away from zero, then clamps to [lo, hi]; NaN gives lo.
[[nodiscard]] inline int round_clamped(float x, int lo, int hi) noexcept {
  return truncate_clamped(std::round(x), lo, hi);
}

// The element of largest magnitude with its sign; the first one wins, NaN never does.
[[nodiscard]] inline float signed_extremum(const float* x, int n) noexcept {
  float extremum = 0.0f;
  float largest = 0.0f;
  for (int i = 0; i < n; ++i) {
    const float magnitude = std::fabs(x[i]);
    if (magnitude > largest) {
      largest = magnitude;
      extremum = x[i];
    }
  }
  return extremum;
}

struct Range {
  float min, max;
};
// The smallest and the largest element; NaN is neither. REQUIRES: n >= 1.
[[nodiscard]] inline Range range_of(const float* x, int n) noexcept {
  Range range{x[0], x[0]};
  for (int i = 1; i < n; ++i) {
    if (x[i] < range.min) range.min = x[i];
    if (x[i] > range.max) range.max = x[i];
  }
  return range;
}

inline constexpr float kLargestF16 = 65504.0f;

// The nearest finite binary16; NaN stays NaN.
[[nodiscard]] inline F16 to_finite_f16(float x) noexcept {
  if (x > kLargestF16) return to_f16(kLargestF16);
  if (x < -kLargestF16) return to_f16(-kLargestF16);
  return to_f16(x);
}

}  // namespace carat::quant
