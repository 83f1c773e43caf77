// Elements of float matrices and their lanes on NEON (kernels/cpu/tile/float_rows.h).
#pragma once

#include "kernels/cpu/neon/simd.h"

namespace carat::kernels {
namespace {

struct F32Row {
  static constexpr int64_t kBytes = 4;
  static CARAT_INLINE neon::Eight load(const void* p) {
    return neon::load(static_cast<const float*>(p));
  }
};
struct F16Row {
  static constexpr int64_t kBytes = 2;
  static CARAT_INLINE neon::Eight load(const void* p) {
    const float16x8_t h = vreinterpretq_f16_u8(vld1q_u8(static_cast<const uint8_t*>(p)));
    return {{vcvt_f32_f16(vget_low_f16(h)), vcvt_high_f32_f16(h)}};
  }
};
struct BF16Row {
  static constexpr int64_t kBytes = 2;
  static CARAT_INLINE neon::Eight load(const void* p) {
    const uint16x8_t h = vreinterpretq_u16_u8(vld1q_u8(static_cast<const uint8_t*>(p)));
    return {{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(h), 16)),
             vreinterpretq_f32_u32(vshll_high_n_u16(h, 16))}};
  }
};

struct NeonFloats {
  using Half = neon::Eight;
  using Vec = neon::Eight;
  static constexpr int64_t kRows = 1;
  static constexpr int kVectors = 4, kTokens = 3, kSeveralTokens = 12;

  static CARAT_INLINE Half zero_half() { return neon::splat(0.0f); }
  static CARAT_INLINE Half load_half(const float* p) { return neon::load(p); }
  static CARAT_INLINE Half load_half(const float* p, int64_t n) { return neon::load(p, n); }
  static CARAT_INLINE void store_half(float* p, Half v) { neon::store(p, v); }
  static CARAT_INLINE Half fma_half(Half a, Half b, Half c) { return neon::fma(a, b, c); }
  static CARAT_INLINE float add_lanes(Half v) { return neon::add_lanes(v); }
  static CARAT_INLINE void add_lanes(float* out, Half a, Half b, Half c, Half d) {
    out[0] = neon::add_lanes(a);
    out[1] = neon::add_lanes(b);
    out[2] = neon::add_lanes(c);
    out[3] = neon::add_lanes(d);
  }
  static CARAT_INLINE void prefetch(const std::byte* p) { __builtin_prefetch(p, 0, 3); }
  static CARAT_INLINE void prefetch_far(const std::byte* p) { __builtin_prefetch(p, 0, 2); }

  static CARAT_INLINE Vec zero() { return neon::splat(0.0f); }
  static CARAT_INLINE Vec load(const float* p) { return neon::load(p); }
  static CARAT_INLINE void store(float* p, Vec v) { neon::store(p, v); }
  static CARAT_INLINE Vec fma(Vec a, Vec b, Vec c) { return neon::fma(a, b, c); }
  static CARAT_INLINE Vec eight(const float* p) { return neon::load(p); }
  static CARAT_INLINE Vec eight(const float* p, int64_t n) { return neon::load(p, n); }
};

}  // namespace
}  // namespace carat::kernels
