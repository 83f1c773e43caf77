// AVX-VNNI for the tile kernels: AVX2 with vpdpbusd of 32 bytes, which adds four products of
// unsigned and signed bytes to an int32 without saturation. No sum can overflow: a set is at most
// 32 * 255 * 128 < 2^21, a row of 2^16 columns less than 2^16 * 255 * 128 < 2^31. Signed codes come
// with 128 added.
#pragma once

#include "kernels/cpu/avx2/isa.h"

namespace carat::kernels {
namespace {

struct AvxVnni : Avx2 {
  static constexpr tile::CodeSign kCodeSign = tile::CodeSign::kUnsigned;

  struct HalfScales {
    Floats scale[2];
  };

  static CARAT_INLINE Codes bias(Codes c) {
    const __m256i v = _mm256_set1_epi8(static_cast<char>(0x80));
    return {_mm256_xor_si256(c.v[0], v), _mm256_xor_si256(c.v[1], v)};
  }
  static CARAT_INLINE Ints add_products(Ints sum, Codes c, const int8_t* x) {
    const __m256i b = broadcast(x);
    return {_mm256_dpbusd_avx_epi32(sum.v[0], c.v[0], b),
            _mm256_dpbusd_avx_epi32(sum.v[1], c.v[1], b)};
  }

  template <int kMax>
  struct Dot {
    Ints total;
    const int32_t* first;

    CARAT_INLINE void begin(const int32_t* start) { first = start; }
    template <int k>
    CARAT_INLINE void add(Codes c, const int8_t* x) {
      if constexpr (k == 0) total = splat_int(*first);
      total = add_products(total, c, x);
    }
    CARAT_INLINE Ints sum() const { return total; }
  };

  template <int kMax>
  struct LongDot {
    Ints total;

    CARAT_INLINE void begin(Ints t) { total = t; }
    template <int k>
    CARAT_INLINE void add(Codes c, const int8_t* x) {
      total = add_products(total, c, x);
    }
    CARAT_INLINE Ints sum() const { return total; }
  };

  template <int kMax>
  using Panel = tile::PlainPanel<AvxVnni, kMax>;

  template <int kOffset>
  static CARAT_INLINE HalfScales half_scales(Bytes a, Bytes b) {
    return {{i8_floats(a), i8_floats(b)}};
  }

  // In floats: each product is below 128 * 16 * 32 * 127 < 2^23 and their sum below 2^24, so all of
  // them are exact.
  template <int kMax, int kOffset>
  struct HalfDot {
    Ints half[2];
    Floats scaled;
    const int32_t* first;

    CARAT_INLINE void begin(const tile::Token& x) { first = x.half_start; }
    template <int k>
    CARAT_INLINE void add(Codes c, const int8_t* x, const HalfScales& s) {
      Ints& sum = half[k % 2];
      if constexpr (k < 2) sum = splat_int(kOffset == 0 ? 0 : first[k]);
      sum = add_products(sum, c, x);
      if constexpr (k == 6) scaled = mul(to_floats(half[0]), s.scale[0]);
    }
    CARAT_INLINE Floats sum(const HalfScales& s) const {
      return fma(to_floats(half[1]), s.scale[1], scaled);
    }
  };
};

}  // namespace
}  // namespace carat::kernels
