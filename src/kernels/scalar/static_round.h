// Static rounding (mobile format): numbers to one of 256 multiples of a scale that the checkpoint
// states. REQUIRES everywhere: scale > 0.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace carat::kernels::scalar {

// clamp(round half to even(x / scale), -128, 127), still a float; NaN stays. A division, because
// the reciprocal would move numbers that lie half way.
template <class T>
T static_level(T x, T scale) noexcept {
  T level = std::nearbyint(x / scale);
  level = level > T{127} ? T{127} : level;
  return level < T{-128} ? T{-128} : level;
}

// n numbers to codes, a NaN to 0. Returns scale, or NaN if one of them is NaN: what the sums of
// codes are multiplied with.
template <class T>
T static_codes(const T* x, int64_t n, T scale, int8_t* codes) noexcept {
  bool is_number = true;
  for (int64_t i = 0; i < n; ++i) {
    const T level = static_level(x[i], scale);
    is_number = is_number && !std::isnan(level);
    codes[i] = std::isnan(level) ? int8_t{0} : static_cast<int8_t>(level);
  }
  return is_number ? scale : std::numeric_limits<T>::quiet_NaN();
}

// y[i] = level of x[i] times scale; y may be x.
template <class T>
void static_round(const T* x, int64_t n, T scale, T* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = static_level(x[i], scale) * scale;
}

}  // namespace carat::kernels::scalar
