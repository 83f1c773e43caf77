// Four floats at a time, in the vector type that GCC and Clang have on every machine: the searches
// of the encoders are the slowest part of converting a model.
#pragma once

#include <cstring>

namespace carat::quant {

using Lanes = float __attribute__((vector_size(16)));
inline constexpr int kLanes = 4;

inline Lanes load(const float* x) noexcept {
  Lanes v;
  std::memcpy(&v, x, sizeof(v));
  return v;
}

inline Lanes all(float x) noexcept { return Lanes{x, x, x, x}; }

inline float sum_of(Lanes v) noexcept { return (v[0] + v[2]) + (v[1] + v[3]); }

// Nearest integers in [lo, hi], halves to even, as floats: adding 1.5 * 2^23 leaves no room for a
// fraction. NaN gives lo. REQUIRES: |lo|, |hi| < 2^22.
inline Lanes nearest_codes(Lanes v, float lo, float hi) noexcept {
  const Lanes low = all(lo), high = all(hi), magic = all(12582912.0f);
  v = v > low ? v : low;
  v = v < high ? v : high;
  return (v + magic) - magic;
}

}  // namespace carat::quant
