// Attention over int8 pages in NEON (simd/code_attention.h): a code of 16 bits is 128 times its
// high byte plus its low 7 bits, so two dot products of signed bytes make one of the codes. Page
// bytes lose the 128 that they have too much at once, hence sums begin at 0.
#pragma once

#include "kernels/cpu/neon/simd.h"

namespace carat::kernels::neon {
namespace {

struct CodeIsa {
  struct Ints {
    int32x4_t v[4];
  };
  struct Floats {
    float32x4_t v[4];
  };
  struct Mask {
    uint32x4_t v[4];
  };
  using Eight = neon::Eight;
  struct Bytes {
    int8x16_t v[4];
  };
  struct Codes {
    int8x16_t high, low;
  };
  struct Sum {
    Ints high, low;
  };
  template <int k>
  struct Count {
    static constexpr int value = k;
  };
  static constexpr int kVectors = 1, kQueries = 2;

  template <class V, class F>
  static CARAT_INLINE V each(F f) {
    return {{f(0), f(1), f(2), f(3)}};
  }

  static CARAT_INLINE Bytes load_bytes(const uint8_t* p) {
    return each<Bytes>([&](int q) {
      return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p + 16 * q), vdupq_n_u8(0x80)));
    });
  }
  // Four high bytes, then four low ones.
  static CARAT_INLINE Codes load_codes(const int16_t* p) {
    int32_t halves[2];
    __builtin_memcpy(halves, p, sizeof halves);
    return {vreinterpretq_s8_s32(vdupq_n_s32(halves[0])),
            vreinterpretq_s8_s32(vdupq_n_s32(halves[1]))};
  }
  // |code| <= 16383: the high byte is -128..127, the low bits 0..127.
  static CARAT_INLINE void store_codes(int16_t* p, Ints c) {
    const int8x16_t high = bytes_of(each<Ints>([&](int q) { return vshrq_n_s32(c.v[q], 7); }));
    const int8x16_t low =
        bytes_of(each<Ints>([&](int q) { return vandq_s32(c.v[q], vdupq_n_s32(127)); }));
    const int32x4x2_t steps = {{vreinterpretq_s32_s8(high), vreinterpretq_s32_s8(low)}};
    int32_t mixed[8];
    vst2q_s32(mixed, steps);
    __builtin_memcpy(p, mixed, sizeof mixed);
  }
  static CARAT_INLINE Sum start(int32_t) { return {zero_ints(), zero_ints()}; }
  // Sums of kMaxHeadDim products of bytes stay far below 2^31.
  static CARAT_INLINE void add_products(Sum& s, const Bytes& b, const Codes& c) {
    for (int q = 0; q < 4; ++q) {
      s.high.v[q] = vdotq_s32(s.high.v[q], b.v[q], c.high);
      s.low.v[q] = vdotq_s32(s.low.v[q], b.v[q], c.low);
    }
  }
  static CARAT_INLINE Ints total(Sum s) {
    return each<Ints>([&](int q) { return vaddq_s32(vshlq_n_s32(s.high.v[q], 7), s.low.v[q]); });
  }

  static CARAT_INLINE Ints load_ints(const int32_t* p) {
    return each<Ints>([&](int q) { return vld1q_s32(p + 4 * q); });
  }
  static CARAT_INLINE void store_ints(int32_t* p, Ints x) {
    for (int q = 0; q < 4; ++q) vst1q_s32(p + 4 * q, x.v[q]);
  }
  static CARAT_INLINE Ints zero_ints() {
    return each<Ints>([](int) { return vdupq_n_s32(0); });
  }
  static CARAT_INLINE Ints add_ints(Ints a, Ints b) {
    return each<Ints>([&](int q) { return vaddq_s32(a.v[q], b.v[q]); });
  }
  static CARAT_INLINE Ints max_ints(Ints a, Ints b) {
    return each<Ints>([&](int q) { return vmaxq_s32(a.v[q], b.v[q]); });
  }
  static CARAT_INLINE Ints magnitude(Floats x) {
    return each<Ints>([&](int q) { return vreinterpretq_s32_u32(neon::magnitude(x.v[q])); });
  }
  static CARAT_INLINE uint32_t largest_int(Ints x) {
    return static_cast<uint32_t>(
        vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.v[0], x.v[1]), vmaxq_s32(x.v[2], x.v[3]))));
  }
  static CARAT_INLINE int32_t sum_ints(Ints x) {
    return vaddvq_s32(vaddq_s32(vaddq_s32(x.v[0], x.v[1]), vaddq_s32(x.v[2], x.v[3])));
  }
  static CARAT_INLINE Ints round(Floats x) {
    return each<Ints>([&](int q) { return vcvtnq_s32_f32(x.v[q]); });
  }
  static CARAT_INLINE Floats to_floats(Ints x) {
    return each<Floats>([&](int q) { return vcvtq_f32_s32(x.v[q]); });
  }

  static CARAT_INLINE Floats load(const float* p) {
    return each<Floats>([&](int q) { return vld1q_f32(p + 4 * q); });
  }
  static CARAT_INLINE Floats load(const float* p, int64_t n) {
    float some[16] = {};
    __builtin_memcpy(some, p, static_cast<size_t>(n) * sizeof(float));
    return load(some);
  }
  static CARAT_INLINE void store(float* p, Floats x) {
    for (int q = 0; q < 4; ++q) vst1q_f32(p + 4 * q, x.v[q]);
  }
  static CARAT_INLINE void store(float* p, Floats x, int64_t n) {
    float all[16];
    store(all, x);
    __builtin_memcpy(p, all, static_cast<size_t>(n) * sizeof(float));
  }
  static CARAT_INLINE Floats splat(float x) {
    return each<Floats>([&](int) { return vdupq_n_f32(x); });
  }
  static CARAT_INLINE Floats mul(Floats a, Floats b) {
    return each<Floats>([&](int q) { return vmulq_f32(a.v[q], b.v[q]); });
  }
  static CARAT_INLINE Floats sub(Floats a, Floats b) {
    return each<Floats>([&](int q) { return vsubq_f32(a.v[q], b.v[q]); });
  }
  static CARAT_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return each<Floats>([&](int q) { return vfmaq_f32(c.v[q], a.v[q], b.v[q]); });
  }
  // b where either is NaN.
  static CARAT_INLINE float32x4_t max_of(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
  }
  static CARAT_INLINE Floats max(Floats a, Floats b) {
    return each<Floats>([&](int q) { return max_of(a.v[q], b.v[q]); });
  }
  static CARAT_INLINE Floats exp(Floats x) {
    return each<Floats>([&](int q) { return exp_of(x.v[q]); });
  }
  static CARAT_INLINE float largest(Floats x) {
    const float32x4_t m = max_of(max_of(x.v[0], x.v[1]), max_of(x.v[2], x.v[3]));
    float lane[4];
    vst1q_f32(lane, m);
    const float a = lane[0] > lane[1] ? lane[0] : lane[1];
    const float b = lane[2] > lane[3] ? lane[2] : lane[3];
    return a > b ? a : b;
  }
  static CARAT_INLINE Eight zero_eight() { return neon::splat(0.0f); }
  static CARAT_INLINE Eight add_halves(Eight s, Floats x) {
    return neon::add(neon::add(s, {{x.v[0], x.v[1]}}), {{x.v[2], x.v[3]}});
  }
  static CARAT_INLINE float add_lanes(Eight s) { return neon::add_lanes(s); }

  // Lanes [begin, end).
  static CARAT_INLINE Mask lanes(int32_t begin, int32_t end) {
    constexpr int32_t kPlaces[4] = {0, 1, 2, 3};
    return each<Mask>([&](int q) {
      const int32x4_t i = vaddq_s32(vld1q_s32(kPlaces), vdupq_n_s32(4 * q));
      return vandq_u32(vcgeq_s32(i, vdupq_n_s32(begin)), vcltq_s32(i, vdupq_n_s32(end)));
    });
  }
  static CARAT_INLINE Floats select(Mask m, Floats a, Floats b) {
    return each<Floats>([&](int q) { return vbslq_f32(m.v[q], a.v[q], b.v[q]); });
  }

 private:
  // Integers within -128..127 to bytes.
  static CARAT_INLINE int8x16_t bytes_of(Ints x) {
    const int16x8_t a = vcombine_s16(vmovn_s32(x.v[0]), vmovn_s32(x.v[1]));
    const int16x8_t b = vcombine_s16(vmovn_s32(x.v[2]), vmovn_s32(x.v[3]));
    return vcombine_s8(vmovn_s16(a), vmovn_s16(b));
  }
};

}  // namespace
}  // namespace carat::kernels::neon
