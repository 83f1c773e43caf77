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

// Of 32 elements the one of largest magnitude with its sign; the first one wins, NaN never does.
inline float extremum_of_block(const float* x) noexcept {
  Lanes largest = {};
  for (int i = 0; i < 32; i += kLanes) {
    const Lanes v = load(x + i);
    const Lanes magnitude = v < 0.0f ? -v : v;
    largest = magnitude > largest ? magnitude : largest;
  }
  float most = largest[0];
  for (int l = 1; l < kLanes; ++l) most = largest[l] > most ? largest[l] : most;
  if (most == 0.0f) return 0.0f;
  int i = 0;
  while (x[i] != most && x[i] != -most) ++i;
  return x[i];
}

// Four codes that fit a byte.
template <class Byte>
void store_codes(Lanes q, Byte* to) noexcept {
  static_assert(sizeof(Byte) == 1);
  for (int l = 0; l < kLanes; ++l) to[l] = static_cast<Byte>(static_cast<int>(q[l]));
}

}  // namespace carat::quant
