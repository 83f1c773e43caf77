// Helpers of the NEON leaf files: eight floats in two registers. Everything is in an anonymous
// namespace and always inlined, so that no symbol leaves the object.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/scalar/constants.h"

#ifndef CARAT_INLINE
#define CARAT_INLINE inline __attribute__((always_inline))
#endif

namespace carat::kernels::neon {
namespace {

struct Eight {
  float32x4_t v[2];
};

CARAT_INLINE Eight splat(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {{v, v}};
}
CARAT_INLINE Eight load(const float* p) { return {{vld1q_f32(p), vld1q_f32(p + 4)}}; }
CARAT_INLINE void store(float* p, Eight x) {
  vst1q_f32(p, x.v[0]);
  vst1q_f32(p + 4, x.v[1]);
}
// n of 0..8 elements, then zeros.
CARAT_INLINE Eight load(const float* p, int64_t n) {
  float some[8] = {};
  __builtin_memcpy(some, p, static_cast<size_t>(n) * sizeof(float));
  return load(some);
}
CARAT_INLINE void store(float* p, Eight x, int64_t n) {
  float all[8];
  store(all, x);
  __builtin_memcpy(p, all, static_cast<size_t>(n) * sizeof(float));
}
CARAT_INLINE Eight add(Eight a, Eight b) {
  return {{vaddq_f32(a.v[0], b.v[0]), vaddq_f32(a.v[1], b.v[1])}};
}
CARAT_INLINE Eight sub(Eight a, Eight b) {
  return {{vsubq_f32(a.v[0], b.v[0]), vsubq_f32(a.v[1], b.v[1])}};
}
CARAT_INLINE Eight mul(Eight a, Eight b) {
  return {{vmulq_f32(a.v[0], b.v[0]), vmulq_f32(a.v[1], b.v[1])}};
}
CARAT_INLINE Eight div(Eight a, Eight b) {
  return {{vdivq_f32(a.v[0], b.v[0]), vdivq_f32(a.v[1], b.v[1])}};
}
// a b + c with one rounding.
CARAT_INLINE Eight fma(Eight a, Eight b, Eight c) {
  return {{vfmaq_f32(c.v[0], a.v[0], b.v[0]), vfmaq_f32(c.v[1], a.v[1], b.v[1])}};
}
CARAT_INLINE Eight neg(Eight a) { return {{vnegq_f32(a.v[0]), vnegq_f32(a.v[1])}}; }

// ((0+4)+(2+6))+((1+5)+(3+7))
CARAT_INLINE float add_lanes(Eight x) {
  const float32x4_t s = vaddq_f32(x.v[0], x.v[1]);
  const float32x2_t t = vadd_f32(vget_low_f32(s), vget_high_f32(s));
  return vget_lane_f32(t, 0) + vget_lane_f32(t, 1);
}

// The canonical dot product.
CARAT_INLINE float dot(const float* a, const float* b, int64_t n) {
  Eight acc = splat(0.0f);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) acc = fma(load(a + i), load(b + i), acc);
  if (i < n) acc = fma(load(a + i, n - i), load(b + i, n - i), acc);
  return add_lanes(acc);
}

// scalar::exp_of, operation by operation.
CARAT_INLINE float32x4_t exp_of(float32x4_t x) {
  const float32x4_t shift = vdupq_n_f32(scalar::kRoundShift);
  x = vmaxq_f32(x, vdupq_n_f32(scalar::kExpLow));  // NaN stays
  x = vminq_f32(x, vdupq_n_f32(scalar::kExpHigh));
  const float32x4_t shifted = vfmaq_f32(shift, x, vdupq_n_f32(scalar::kLog2E));
  const float32x4_t n = vsubq_f32(shifted, shift);
  float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(-scalar::kLn2High));
  r = vfmaq_f32(r, n, vdupq_n_f32(-scalar::kLn2Low));
  float32x4_t p = vdupq_n_f32(scalar::kExpPoly[0]);
  for (int i = 1; i < 5; ++i) p = vfmaq_f32(vdupq_n_f32(scalar::kExpPoly[i]), p, r);
  p = vaddq_f32(vfmaq_f32(r, p, vmulq_f32(r, r)), vdupq_n_f32(1.0f));
  const int32x4_t whole = vsubq_s32(vreinterpretq_s32_f32(shifted), vreinterpretq_s32_f32(shift));
  const int32x4_t half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
  const int32x4_t a = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const int32x4_t b = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
  return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(a)), vreinterpretq_f32_s32(b));
}
CARAT_INLINE Eight exp_of(Eight x) { return {{exp_of(x.v[0]), exp_of(x.v[1])}}; }

// scalar::tanh_of, operation by operation.
CARAT_INLINE float32x4_t tanh_of(float32x4_t x) {
  const uint32x4_t sign = vdupq_n_u32(0x80000000u);
  const float32x4_t one = vdupq_n_f32(1.0f), a = vabsq_f32(x), z = vmulq_f32(x, x);
  float32x4_t p = vdupq_n_f32(scalar::kTanhPoly[0]);
  for (int i = 1; i < 5; ++i) p = vfmaq_f32(vdupq_n_f32(scalar::kTanhPoly[i]), p, z);
  const float32x4_t small = vfmaq_f32(x, vmulq_f32(p, z), x);
  const float32x4_t e = vaddq_f32(exp_of(vaddq_f32(a, a)), one);
  const float32x4_t large = vsubq_f32(one, vdivq_f32(vdupq_n_f32(2.0f), e));
  return vbslq_f32(vcltq_f32(a, vdupq_n_f32(scalar::kTanhSmall)), small, vbslq_f32(sign, x, large));
}
CARAT_INLINE Eight tanh_of(Eight x) { return {{tanh_of(x.v[0]), tanh_of(x.v[1])}}; }

// f(load, store) over 8 elements at a time, then the tail: load(p) reads p[i..], store(p, v) writes
// it.
template <class F>
CARAT_INLINE void for_each_8(int64_t n, F f) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    f([i](const float* p) { return load(p + i); }, [i](float* p, Eight v) { store(p + i, v); });
  }
  if (i < n) {
    const int64_t rest = n - i;
    f([i, rest](const float* p) { return load(p + i, rest); },
      [i, rest](float* p, Eight v) { store(p + i, v, rest); });
  }
}

// What rounding to integer codes of at most `most` multiplies by.
struct Rounding {
  float scale;    // 0 for zeros, NaN if a value is not finite
  float inverse;  // 0 in both cases
};

// bits: the largest magnitude as an integer, which orders NaN above infinity above the rest.
CARAT_INLINE Rounding rounding_for(uint32_t bits, float most) {
  float max;
  __builtin_memcpy(&max, &bits, sizeof max);
  if (bits >= 0x7f800000u) return {__builtin_nanf(""), 0.0f};
  if (max < scalar::kQuantizeZero) return {0.0f, 0.0f};
  const float scale = max / most;
  return {scale, 1.0f / scale};
}

CARAT_INLINE uint32x4_t magnitude(float32x4_t x) {
  return vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7fffffffu));
}
CARAT_INLINE uint32x4_t magnitude(Eight x) {
  return vmaxq_u32(magnitude(x.v[0]), magnitude(x.v[1]));
}

}  // namespace
}  // namespace carat::kernels::neon
