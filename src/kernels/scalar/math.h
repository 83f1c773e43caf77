// exp and tanh of our own, so that every ISA can repeat them operation by operation and give the
// same bits, and the fixed summation order that all float sums share.
//
// All functions of this folder are templates on T = float or double: the readable specification
// of every op, the oracle of the vector kernels, and the arithmetic of the training tape. They know
// pointers and sizes only. For double, exp and tanh are the C library's.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/scalar/constants.h"

namespace carat::kernels::scalar {

// Number of lanes of a float sum; element i goes to lane i mod kLanes.
inline constexpr int64_t kLanes = 8;

// The fixed final tree.
template <class T>
T add_lanes(const T (&lane)[kLanes]) noexcept {
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

// e^x, relative error below 1.2e-7; exactly 1 at 0, 0 below -104, infinity above 88.73.
inline float exp_of(float x) noexcept {
  // Written so that NaN stays: a comparison with NaN is false.
  x = x < kExpLow ? kExpLow : x;
  x = x > kExpHigh ? kExpHigh : x;
  const float shifted = std::fma(x, kLog2E, kRoundShift);
  const float n = shifted - kRoundShift;
  float r = std::fma(n, -kLn2High, x);
  r = std::fma(n, -kLn2Low, r);
  float p = kExpPoly[0];
  for (int i = 1; i < 5; ++i) p = std::fma(p, r, kExpPoly[i]);
  p = std::fma(p, r * r, r) + 1.0f;
  // 2^n in two factors, so that subnormal results and the overflow come out right.
  const uint32_t bits = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRoundShift);
  const int32_t whole = static_cast<int32_t>(bits);
  const int32_t half = whole >> 1;
  const float a = std::bit_cast<float>(static_cast<uint32_t>(half + 127) << 23);
  const float b = std::bit_cast<float>((bits - static_cast<uint32_t>(half) + 127u) << 23);
  return (p * a) * b;
}
inline double exp_of(double x) noexcept { return std::exp(x); }

// tanh(x), relative error below 4e-7.
inline float tanh_of(float x) noexcept {
  const float a = std::fabs(x);
  if (a < kTanhSmall) {
    const float z = x * x;
    float p = kTanhPoly[0];
    for (int i = 1; i < 5; ++i) p = std::fma(p, z, kTanhPoly[i]);
    return std::fma(p * z, x, x);
  }
  return std::copysign(1.0f - 2.0f / (exp_of(a + a) + 1.0f), x);
}
inline double tanh_of(double x) noexcept { return std::tanh(x); }

}  // namespace carat::kernels::scalar
