// NEON with the dot product instructions for the tile kernels (kernels/cpu/tile/isa.h says what
// each member means). Vectors of 16 lanes are four registers, rows 4 q .. 4 q + 3 in register q.
//
// sdot adds four products of signed bytes to an int32 without saturation. No sum can overflow: a
// set is at most 32 * 128 * 128 = 2^19, a row of 2^16 columns at most 2^30.
#pragma once

#include <arm_neon.h>

#include "kernels/cpu/tile/isa.h"

namespace carat::kernels {
namespace {

struct Neon {
  static constexpr tile::CodeSign kCodeSign = tile::CodeSign::kSigned;
  static constexpr int kFewTokens = 4;
  static constexpr int kSeveralTokens = 8;
  static constexpr int kTokens = 4;
  static constexpr bool kPlaceSums = false;
  static constexpr int kTiles = 1;

  struct Codes {
    uint8x16_t v[4];
  };
  struct Ints {
    int32x4_t v[4];
  };
  struct Floats {
    float32x4_t v[4];
  };
  using Bytes = uint8x16_t;
  struct HalfScales {
    Ints scale[2];
  };
  struct HalfPairs {
    Ints first, second;
  };

  // f(q) for the four registers.
  template <class V, class F>
  static CARAT_INLINE V each(F f) {
    return {{f(0), f(1), f(2), f(3)}};
  }

  // -- codes
  static CARAT_INLINE Codes load(const std::byte* p) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(p);
    return each<Codes>([&](int q) CARAT_LAMBDA { return vld1q_u8(bytes + 16 * q); });
  }
  static CARAT_INLINE Codes mask(Codes c, uint8_t m) {
    return each<Codes>([&](int q) CARAT_LAMBDA { return vandq_u8(c.v[q], vdupq_n_u8(m)); });
  }
  static CARAT_INLINE Codes merge(Codes a, Codes b) {
    return each<Codes>([&](int q) CARAT_LAMBDA { return vorrq_u8(a.v[q], b.v[q]); });
  }
  template <int n>
  static CARAT_INLINE Codes left(Codes c) {
    if constexpr (n == 0) return c;
    return each<Codes>([&](int q) CARAT_LAMBDA { return vshlq_n_u8(c.v[q], n); });
  }
  template <int n>
  static CARAT_INLINE Codes right(Codes c) {
    if constexpr (n == 0) {
      return c;
    } else {
      return each<Codes>([&](int q) CARAT_LAMBDA { return vshrq_n_u8(c.v[q], n); });
    }
  }
  static CARAT_INLINE Codes table(Codes c, const int8_t* t) {
    const uint8x16_t levels = vreinterpretq_u8_s8(vld1q_s8(t));
    return each<Codes>([&](int q) CARAT_LAMBDA { return vqtbl1q_u8(levels, c.v[q]); });
  }
  static CARAT_INLINE Codes minus(Codes c, int8_t b) {
    const uint8x16_t v = vreinterpretq_u8_s8(vdupq_n_s8(b));
    return each<Codes>([&](int q) CARAT_LAMBDA { return vsubq_u8(c.v[q], v); });
  }

  // -- numbers
  static CARAT_INLINE Bytes load_bytes(const std::byte* p) {
    return vld1q_u8(reinterpret_cast<const uint8_t*>(p));
  }
  static CARAT_INLINE Bytes low4(Bytes b) { return vandq_u8(b, vdupq_n_u8(15)); }
  static CARAT_INLINE Bytes high4(Bytes b) { return vshrq_n_u8(b, 4); }
  static CARAT_INLINE Ints u8_ints(Bytes b) {
    const uint16x8_t low = vmovl_u8(vget_low_u8(b)), high = vmovl_high_u8(b);
    return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))),
             vreinterpretq_s32_u32(vmovl_high_u16(low)),
             vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
             vreinterpretq_s32_u32(vmovl_high_u16(high))}};
  }
  static CARAT_INLINE Ints i8_ints(Bytes b) {
    const int8x16_t s = vreinterpretq_s8_u8(b);
    const int16x8_t low = vmovl_s8(vget_low_s8(s)), high = vmovl_high_s8(s);
    return {{vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)),
             vmovl_high_s16(high)}};
  }
  static CARAT_INLINE Floats u8_floats(Bytes b) { return to_floats(u8_ints(b)); }
  static CARAT_INLINE Floats i8_floats(Bytes b) { return to_floats(i8_ints(b)); }
  static CARAT_INLINE Floats load_f16(const std::byte* p) {
    return each<Floats>([&](int q) CARAT_LAMBDA {
      const uint8x8_t bytes = vld1_u8(reinterpret_cast<const uint8_t*>(p) + 8 * q);
      return vcvt_f32_f16(vreinterpret_f16_u8(bytes));
    });
  }
  static CARAT_INLINE Floats load_floats(const float* p) {
    return each<Floats>([&](int q) CARAT_LAMBDA { return vld1q_f32(p + 4 * q); });
  }
  static CARAT_INLINE Floats load_floats(const float* p, int64_t n) {
    if (n == kTileRows) return load_floats(p);
    float some[kTileRows] = {};
    __builtin_memcpy(some, p, static_cast<size_t>(n) * sizeof(float));
    return load_floats(some);
  }
  static CARAT_INLINE void store_floats(float* p, Floats f) {
    for (int q = 0; q < 4; ++q) vst1q_f32(p + 4 * q, f.v[q]);
  }
  static CARAT_INLINE void store_floats(float* p, Floats f, int64_t n) {
    if (n == kTileRows) return store_floats(p, f);
    float all[kTileRows];
    store_floats(all, f);
    __builtin_memcpy(p, all, static_cast<size_t>(n) * sizeof(float));
  }
  static CARAT_INLINE Floats zero() {
    return each<Floats>([](int) CARAT_LAMBDA { return vdupq_n_f32(0.0f); });
  }
  static CARAT_INLINE Floats splat(const float* x) {
    const float32x4_t v = vld1q_dup_f32(x);
    return {{v, v, v, v}};
  }
  static CARAT_INLINE Floats mul(Floats a, Floats b) {
    return each<Floats>([&](int q) CARAT_LAMBDA { return vmulq_f32(a.v[q], b.v[q]); });
  }
  static CARAT_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return each<Floats>([&](int q) CARAT_LAMBDA { return vfmaq_f32(c.v[q], a.v[q], b.v[q]); });
  }
  static CARAT_INLINE Floats fnma(Floats a, Floats b, Floats c) {
    return each<Floats>([&](int q) CARAT_LAMBDA { return vfmsq_f32(c.v[q], a.v[q], b.v[q]); });
  }
  static CARAT_INLINE Floats to_floats(Ints i) {
    return each<Floats>([&](int q) CARAT_LAMBDA { return vcvtq_f32_s32(i.v[q]); });
  }
  static CARAT_INLINE Ints load_ints(const float* p) {
    return each<Ints>([&](int q)
                          CARAT_LAMBDA { return vreinterpretq_s32_f32(vld1q_f32(p + 4 * q)); });
  }
  static CARAT_INLINE void store_ints(float* p, Ints i) {
    for (int q = 0; q < 4; ++q) vst1q_f32(p + 4 * q, vreinterpretq_f32_s32(i.v[q]));
  }
  static CARAT_INLINE void prefetch(const std::byte* p) { __builtin_prefetch(p, 0, 3); }
  static CARAT_INLINE void prefetch_far(const std::byte* p) { __builtin_prefetch(p, 0, 2); }

  // -- dot products
  static CARAT_INLINE Ints add_ints(Ints a, Ints b) {
    return each<Ints>([&](int q) CARAT_LAMBDA { return vaddq_s32(a.v[q], b.v[q]); });
  }
  static CARAT_INLINE Ints splat_int(int32_t i) {
    const int32x4_t v = vdupq_n_s32(i);
    return {{v, v, v, v}};
  }
  static CARAT_INLINE Ints add_products(Ints sum, Codes c, const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, sizeof four);
    const int8x16_t b = vreinterpretq_s8_s32(vdupq_n_s32(four));
    return each<Ints>(
        [&](int q) CARAT_LAMBDA { return vdotq_s32(sum.v[q], vreinterpretq_s8_u8(c.v[q]), b); });
  }

  template <int kMax>
  struct Dot {
    static_assert(kMax == 0);
    Ints total;

    CARAT_INLINE void begin(const int32_t* start) { total = splat_int(*start); }
    template <int k>
    CARAT_INLINE void add(Codes c, const int8_t* x) {
      total = add_products(total, c, x);
    }
    CARAT_INLINE Ints sum() const { return total; }
  };

  template <int kMax>
  struct LongDot {
    static_assert(kMax == 0);
    Ints total;

    CARAT_INLINE void begin(Ints t) { total = t; }
    template <int k>
    CARAT_INLINE void add(Codes c, const int8_t* x) {
      total = add_products(total, c, x);
    }
    CARAT_INLINE Ints sum() const { return total; }
  };

  template <int kMax>
  using Panel = tile::PlainPanel<Neon, kMax>;

  template <int kOffset>
  static CARAT_INLINE HalfScales half_scales(Bytes a, Bytes b) {
    return {{i8_ints(a), i8_ints(b)}};
  }
  static CARAT_INLINE HalfPairs half_pairs(Bytes a, Bytes b) { return {i8_ints(a), i8_ints(b)}; }
  static CARAT_INLINE Ints pair_dot(HalfPairs p, const int16_t* x) {
    return each<Ints>([&](int q) CARAT_LAMBDA {
      return vmlaq_n_s32(vmulq_n_s32(p.first.v[q], x[0]), p.second.v[q], x[1]);
    });
  }

  // Codes have their offset taken off: |scale| <= 128 times |S| <= 16 * 32 * 127, both halves of it
  // below 2^24.
  template <int kMax, int kOffset>
  struct HalfDot {
    static_assert(kMax == 0 && kOffset == 0);
    Ints half[2];

    CARAT_INLINE void begin(const tile::Token&) { half[0] = half[1] = splat_int(0); }
    template <int k>
    CARAT_INLINE void add(Codes c, const int8_t* x, const HalfScales&) {
      half[k % 2] = add_products(half[k % 2], c, x);
    }
    CARAT_INLINE Floats sum(const HalfScales& s) const {
      return to_floats(each<Ints>([&](int q) CARAT_LAMBDA {
        return vmlaq_s32(vmulq_s32(half[0].v[q], s.scale[0].v[q]), half[1].v[q], s.scale[1].v[q]);
      }));
    }
  };
};

}  // namespace
}  // namespace carat::kernels
