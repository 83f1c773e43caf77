// AVX-512 with VNNI for the tile kernels (kernels/cpu/tile/isa.h says what each member means). A
// vector of 16 lanes is one register.
//
// vpdpbusd adds four products of unsigned and signed bytes to an int32 without saturation, so no
// sum here can overflow: a set is at most 32 * 255 * 128 < 2^21, a row of 2^16 columns less than
// 2^16 * 255 * 128 < 2^31. Signed codes come with 128 added.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/tile/isa.h"

namespace carat::kernels {
namespace {

struct Avx512 {
  static constexpr tile::CodeSign kCodeSign = tile::CodeSign::kUnsigned;
  static constexpr int kFewTokens = 8;
  static constexpr int kSeveralTokens = 8;
  static constexpr int kTokens = 6;
  static constexpr int kTiles = 2;
  static constexpr bool kPlaceSums = true;

  using Codes = __m512i;
  using Ints = __m512i;
  using Floats = __m512;
  using Bytes = __m128i;
  struct HalfScales {
    Floats scale[2];
  };
  using HalfPairs = __m512i;  // int16 pairs

  // -- codes
  static CARAT_INLINE Codes load(const std::byte* p) { return _mm512_loadu_si512(p); }
  static CARAT_INLINE Codes mask(Codes c, uint8_t m) {
    return _mm512_and_si512(c, _mm512_set1_epi8(static_cast<char>(m)));
  }
  static CARAT_INLINE Codes merge(Codes a, Codes b) { return _mm512_or_si512(a, b); }
  template <int n>
  static CARAT_INLINE Codes left(Codes c) {
    if constexpr (n == 0) return c;
    return _mm512_slli_epi16(c, n);
  }
  template <int n>
  static CARAT_INLINE Codes right(Codes c) {
    if constexpr (n == 0) return c;
    return _mm512_srli_epi16(c, n);
  }
  static CARAT_INLINE Codes table(Codes c, const int8_t* t) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_16(t)), c);
  }
  static CARAT_INLINE Codes bias(Codes c) {
    return _mm512_xor_si512(c, _mm512_set1_epi8(static_cast<char>(0x80)));
  }

  // -- numbers
  static CARAT_INLINE __m128i load_16(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
  static CARAT_INLINE Bytes load_bytes(const std::byte* p) { return load_16(p); }
  static CARAT_INLINE Bytes low4(Bytes b) { return _mm_and_si128(b, _mm_set1_epi8(15)); }
  static CARAT_INLINE Bytes high4(Bytes b) {
    return _mm_and_si128(_mm_srli_epi16(b, 4), _mm_set1_epi8(15));
  }
  static CARAT_INLINE Floats u8_floats(Bytes b) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(b));
  }
  static CARAT_INLINE Floats i8_floats(Bytes b) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b));
  }
  static CARAT_INLINE Floats load_f16(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static CARAT_INLINE __mmask16 lanes_below(int64_t n) {
    return static_cast<__mmask16>((1u << n) - 1);
  }
  static CARAT_INLINE Floats load_floats(const float* p) { return _mm512_loadu_ps(p); }
  static CARAT_INLINE Floats load_floats(const float* p, int64_t n) {
    return _mm512_maskz_loadu_ps(lanes_below(n), p);
  }
  static CARAT_INLINE void store_floats(float* p, Floats f) { _mm512_storeu_ps(p, f); }
  static CARAT_INLINE void store_floats(float* p, Floats f, int64_t n) {
    _mm512_mask_storeu_ps(p, lanes_below(n), f);
  }
  static CARAT_INLINE Floats zero() { return _mm512_setzero_ps(); }
  static CARAT_INLINE Floats splat(const float* x) { return _mm512_set1_ps(*x); }
  static CARAT_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static CARAT_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static CARAT_INLINE Floats fnma(Floats a, Floats b, Floats c) {
    return _mm512_fnmadd_ps(a, b, c);
  }
  static CARAT_INLINE Floats to_floats(Ints i) { return _mm512_cvtepi32_ps(i); }
  static CARAT_INLINE Ints add_ints(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static CARAT_INLINE Ints splat_int(int32_t i) { return _mm512_set1_epi32(i); }
  template <int n>
  static CARAT_INLINE Ints right_ints(Ints a) {
    return _mm512_srai_epi32(a, n);
  }
  static CARAT_INLINE Ints load_ints(const float* p) { return _mm512_loadu_si512(p); }
  static CARAT_INLINE void store_ints(float* p, Ints i) { _mm512_storeu_si512(p, i); }
  static CARAT_INLINE void prefetch(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
  static CARAT_INLINE void prefetch_far(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
  }

  // -- dot products
  static CARAT_INLINE Ints broadcast(const void* x) {
    int32_t v;
    __builtin_memcpy(&v, x, sizeof v);
    return _mm512_set1_epi32(v);
  }

  static CARAT_INLINE Ints add_products(Ints sum, Codes c, const int8_t* x) {
    return _mm512_dpbusd_epi32(sum, c, broadcast(x));
  }

  template <int kMax>
  struct Dot {
    Ints total;
    const int32_t* first;

    CARAT_INLINE void begin(const int32_t* start) { first = start; }
    template <int k>
    CARAT_INLINE void add(Codes c, const int8_t* x) {
      if constexpr (k == 0) total = broadcast(first);
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
  using Panel = tile::PlainPanel<Avx512, kMax>;

  template <int kOffset>
  static CARAT_INLINE HalfScales half_scales(Bytes a, Bytes b) {
    return {{i8_floats(a), i8_floats(b)}};
  }
  static CARAT_INLINE HalfPairs half_pairs(Bytes a, Bytes b) {
    return _mm512_or_si512(_mm512_cvtepu8_epi32(a), _mm512_slli_epi32(_mm512_cvtepu8_epi32(b), 16));
  }
  static CARAT_INLINE Ints pair_dot(HalfPairs p, const int16_t* x) {
    return _mm512_madd_epi16(p, broadcast(x));
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
      if constexpr (k < 2) sum = kOffset == 0 ? _mm512_setzero_si512() : broadcast(first + k);
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
