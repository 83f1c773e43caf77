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
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  // x = n ln 2 + r; adding 1.5 * 2^23 rounds n to an integer that stands in the low mantissa bits.
  const float shifted = std::fma(x, 0x1.715476p+0f, 0x1.8p+23f);
  const float n = shifted - 0x1.8p+23f;
  float r = std::fma(n, -0x1.62e4p-1f, x);
  r = std::fma(n, -0x1.7f7d1cp-20f, r);
  float p = 0.00139263759958f;
  p = std::fma(p, r, 0.00836333308218f);
  p = std::fma(p, r, 0.0416665534587f);
  p = std::fma(p, r, 0.166665760623f);
  p = std::fma(p, r, 0.5f);
  p = std::fma(p, r * r, r) + 1.0f;
  // 2^n in two factors, so that subnormal results and the overflow come out right.
  const uint32_t bits = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0x1.8p+23f);
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
  if (a < 0.625f) {
    const float z = x * x;
    float p = -0.00609464131536f;
    p = std::fma(p, z, 0.0209957538903f);
    p = std::fma(p, z, -0.0538506091084f);
    p = std::fma(p, z, 0.133327677603f);
    p = std::fma(p, z, -0.333333289245f);
    return std::fma(p * z, x, x);
  }
  return std::copysign(1.0f - 2.0f / (exp_of(a + a) + 1.0f), x);
}
inline double tanh_of(double x) noexcept { return std::tanh(x); }

}  // namespace carat::kernels::scalar
