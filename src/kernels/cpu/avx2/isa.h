// AVX2 for the tile kernels (kernels/cpu/tile/isa.h says what each member means). Vectors of 16
// lanes are two registers, rows 0..7 and 8..15.
//
// Products of unsigned codes with int8 are maddubs: two products to an int16, which are added as
// int16 as long as they fit: kRun products of at most 2 * kMax * 128 stay below 2^15. Signed codes
// (up to 128 in magnitude) are |w| * (x with the sign of w), 2 * 128 * 127 < 2^15, widened at once.
#pragma once

#include <immintrin.h>

#include <type_traits>

#include "kernels/cpu/tile/isa.h"

namespace carat::kernels {
namespace {

struct Avx2 {
  static constexpr tile::CodeSign kCodeSign = tile::CodeSign::kMixed;
  static constexpr int kFewTokens = 4;
  static constexpr int kSeveralTokens = 8;
  static constexpr int kTokens = 4;
  static constexpr int kTiles = 1;
  static constexpr bool kPlaceSums = false;

  struct Codes {
    __m256i v[2];
  };
  struct Ints {
    __m256i v[2];
  };
  struct Floats {
    __m256 v[2];
  };
  using Bytes = __m128i;
  // int16 pairs: (scale0, scale1) times the offset; each scale twice.
  struct HalfScales {
    Ints correction, scale[2];
  };
  using HalfPairs = Ints;

  // -- codes
  static CARAT_INLINE __m256i load_256(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static CARAT_INLINE Codes load(const std::byte* p) { return {load_256(p), load_256(p + 32)}; }
  static CARAT_INLINE Codes mask(Codes c, uint8_t m) {
    const __m256i v = _mm256_set1_epi8(static_cast<char>(m));
    return {_mm256_and_si256(c.v[0], v), _mm256_and_si256(c.v[1], v)};
  }
  static CARAT_INLINE Codes merge(Codes a, Codes b) {
    return {_mm256_or_si256(a.v[0], b.v[0]), _mm256_or_si256(a.v[1], b.v[1])};
  }
  template <int n>
  static CARAT_INLINE Codes left(Codes c) {
    if constexpr (n == 0) return c;
    return {_mm256_slli_epi16(c.v[0], n), _mm256_slli_epi16(c.v[1], n)};
  }
  template <int n>
  static CARAT_INLINE Codes right(Codes c) {
    if constexpr (n == 0) return c;
    return {_mm256_srli_epi16(c.v[0], n), _mm256_srli_epi16(c.v[1], n)};
  }
  static CARAT_INLINE Codes table(Codes c, const int8_t* t) {
    const __m256i v =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(t)));
    return {_mm256_shuffle_epi8(v, c.v[0]), _mm256_shuffle_epi8(v, c.v[1])};
  }

  // -- numbers
  static CARAT_INLINE Bytes load_bytes(const std::byte* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static CARAT_INLINE Bytes low4(Bytes b) { return _mm_and_si128(b, _mm_set1_epi8(15)); }
  static CARAT_INLINE Bytes high4(Bytes b) {
    return _mm_and_si128(_mm_srli_epi16(b, 4), _mm_set1_epi8(15));
  }
  static CARAT_INLINE Floats u8_floats(Bytes b) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(b, 8)))};
  }
  static CARAT_INLINE Floats i8_floats(Bytes b) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(b, 8)))};
  }
  static CARAT_INLINE Floats load_f16(const std::byte* p) {
    return {_mm256_cvtph_ps(load_bytes(p)), _mm256_cvtph_ps(load_bytes(p + 16))};
  }
  static CARAT_INLINE Floats load_floats(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
  }
  static CARAT_INLINE Floats load_floats(const float* p, int64_t n) {
    if (n == kTileRows) return load_floats(p);
    return {_mm256_maskload_ps(p, lanes_below(n)), _mm256_maskload_ps(p + 8, lanes_below(n - 8))};
  }
  static CARAT_INLINE void store_floats(float* p, Floats f) {
    _mm256_storeu_ps(p, f.v[0]);
    _mm256_storeu_ps(p + 8, f.v[1]);
  }
  static CARAT_INLINE void store_floats(float* p, Floats f, int64_t n) {
    if (n == kTileRows) return store_floats(p, f);
    _mm256_maskstore_ps(p, lanes_below(n), f.v[0]);
    _mm256_maskstore_ps(p + 8, lanes_below(n - 8), f.v[1]);
  }
  static CARAT_INLINE Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static CARAT_INLINE Floats splat(const float* x) {
    return {_mm256_set1_ps(*x), _mm256_set1_ps(*x)};
  }
  static CARAT_INLINE Floats mul(Floats a, Floats b) {
    return {_mm256_mul_ps(a.v[0], b.v[0]), _mm256_mul_ps(a.v[1], b.v[1])};
  }
  static CARAT_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return {_mm256_fmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], c.v[1])};
  }
  static CARAT_INLINE Floats fnma(Floats a, Floats b, Floats c) {
    return {_mm256_fnmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fnmadd_ps(a.v[1], b.v[1], c.v[1])};
  }
  static CARAT_INLINE Floats to_floats(Ints i) {
    return {_mm256_cvtepi32_ps(i.v[0]), _mm256_cvtepi32_ps(i.v[1])};
  }
  static CARAT_INLINE Ints load_ints(const float* p) { return {load_256(p), load_256(p + 8)}; }
  static CARAT_INLINE void store_ints(float* p, Ints i) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), i.v[0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), i.v[1]);
  }
  static CARAT_INLINE void prefetch(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
  static CARAT_INLINE void prefetch_far(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
  }

  // -- dot products
  static CARAT_INLINE __m256i broadcast(const int8_t* x) {
    int32_t v;
    __builtin_memcpy(&v, x, sizeof v);
    return _mm256_set1_epi32(v);
  }
  static CARAT_INLINE Ints add_words(Ints a, Ints b) {
    return {_mm256_add_epi16(a.v[0], b.v[0]), _mm256_add_epi16(a.v[1], b.v[1])};
  }
  static CARAT_INLINE Ints add_ints(Ints a, Ints b) {
    return {_mm256_add_epi32(a.v[0], b.v[0]), _mm256_add_epi32(a.v[1], b.v[1])};
  }
  static CARAT_INLINE Ints sub_ints(Ints a, Ints b) {
    return {_mm256_sub_epi32(a.v[0], b.v[0]), _mm256_sub_epi32(a.v[1], b.v[1])};
  }
  static CARAT_INLINE Ints madd(Ints a, Ints b) {
    return {_mm256_madd_epi16(a.v[0], b.v[0]), _mm256_madd_epi16(a.v[1], b.v[1])};
  }
  static CARAT_INLINE Ints ones() {
    const __m256i v = _mm256_set1_epi16(1);
    return {v, v};
  }
  static CARAT_INLINE Ints splat_int(int32_t i) {
    return {_mm256_set1_epi32(i), _mm256_set1_epi32(i)};
  }
  static CARAT_INLINE Ints splat_pair(const int16_t* x) {
    int32_t v;
    __builtin_memcpy(&v, x, sizeof v);
    return splat_int(v);
  }
  // Pairs of products as int16.
  template <int kMax>
  static CARAT_INLINE Ints products(Codes c, const int8_t* x) {
    const __m256i b = broadcast(x);
    if constexpr (kMax == 0) {
      return {_mm256_maddubs_epi16(_mm256_abs_epi8(c.v[0]), _mm256_sign_epi8(b, c.v[0])),
              _mm256_maddubs_epi16(_mm256_abs_epi8(c.v[1]), _mm256_sign_epi8(b, c.v[1]))};
    }
    return {_mm256_maddubs_epi16(c.v[0], b), _mm256_maddubs_epi16(c.v[1], b)};
  }
  // How many of them add up in int16.
  static constexpr int run_of(int max) { return max == 0 ? 1 : 32767 / (2 * 128 * max); }

  template <int kMax>
  struct Dot {
    static constexpr int kRun = run_of(kMax) < 8 ? run_of(kMax) : 8;
    Ints words, total;
    const int32_t* first;

    CARAT_INLINE void begin(const int32_t* start) { first = start; }
    template <int k>
    CARAT_INLINE void add(Codes c, const int8_t* x) {
      const Ints p = products<kMax>(c, x);
      words = k % kRun == 0 ? p : add_words(words, p);
      if constexpr ((k + 1) % kRun == 0 || k == 7) {
        const Ints s = madd(words, ones());
        total = k < kRun ? s : add_ints(total, s);
      }
    }
    CARAT_INLINE Ints sum() const { return kMax == 0 ? total : add_ints(total, splat_int(*first)); }
  };

  // Signed codes where many tokens use them: as int16, columns 0 and 2 of the four, then 1 and 3,
  // for half the multiplications of |w| and sign, which only port 0 and 1 can do. Any int8 will do:
  // 2 * 128 * 128 to an int32 lane and madd, 2^31 / 2^15 of them.
  struct WidePanel {
    struct Codes {
      Ints even, odd;
    };
    static constexpr int kTokenBytes = 64;

    static CARAT_INLINE __m256i even(__m256i v) {
      return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
    }
    static CARAT_INLINE __m256i odd(__m256i v) { return _mm256_srai_epi16(v, 8); }
    static CARAT_INLINE Codes pack(Avx2::Codes c) {
      return {{even(c.v[0]), even(c.v[1])}, {odd(c.v[0]), odd(c.v[1])}};
    }
    // Words of a token: even columns, two to a vector j, then odd ones.
    static CARAT_INLINE void pack_token(const int8_t* codes, int8_t* out) {
      const __m256i v = load_256(codes);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), even(v));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32), odd(v));
    }
    static constexpr int place_of(int j) { return 4 * j; }

    struct Dot {
      Ints total;

      CARAT_INLINE void begin(const int32_t*) {}
      template <int k>
      CARAT_INLINE void add(const Codes& c, const int8_t* x) {
        const __m256i e = broadcast(x), o = broadcast(x + 32);
        const Ints p = madd(c.even, {e, e});
        total = k == 0 ? p : add_ints(total, p);
        total = add_ints(total, madd(c.odd, {o, o}));
      }
      CARAT_INLINE Ints sum() const { return total; }
    };
    struct Long {
      Ints total;

      CARAT_INLINE void begin(Ints t) { total = t; }
      template <int k>
      CARAT_INLINE void add(const Codes& c, const int8_t* x) {
        const __m256i e = broadcast(x), o = broadcast(x + 32);
        total = add_ints(total, madd(c.even, {e, e}));
        total = add_ints(total, madd(c.odd, {o, o}));
      }
      CARAT_INLINE Ints sum() const { return total; }
    };
  };
  template <int kMax>
  using Panel = std::conditional_t<kMax == 0, WidePanel, tile::PlainPanel<Avx2, kMax>>;

  // Words as in Dot, which hold -128 as well, added up at the end of a set.
  template <int kMax>
  struct LongDot {
    Ints words, total;

    CARAT_INLINE void begin(Ints t) { total = t; }
    template <int k>
    CARAT_INLINE void add(Codes c, const int8_t* x) {
      if constexpr (kMax == 0) {
        const __m256i b = broadcast(x), e = WidePanel::even(b), o = WidePanel::odd(b);
        const typename WidePanel::Codes w = WidePanel::pack(c);
        total = add_ints(total, madd(w.even, {e, e}));
        total = add_ints(total, madd(w.odd, {o, o}));
      } else {
        static_assert(run_of(kMax) >= 8);
        const Ints p = products<kMax>(c, x);
        words = k == 0 ? p : add_words(words, p);
        if constexpr (k == 7) total = add_ints(total, madd(words, ones()));
      }
    }
    CARAT_INLINE Ints sum() const { return total; }
  };

  template <int kOffset>
  static CARAT_INLINE HalfScales half_scales(Bytes a, Bytes b) {
    HalfScales h;
    const Ints pairs = half_pairs(a, b);
    const auto twice = [&](int from) CARAT_LAMBDA {
      const __m256i m = _mm256_set_epi8(
          13 + from, 12 + from, 13 + from, 12 + from, 9 + from, 8 + from, 9 + from, 8 + from,
          5 + from, 4 + from, 5 + from, 4 + from, 1 + from, from, 1 + from, from, 13 + from,
          12 + from, 13 + from, 12 + from, 9 + from, 8 + from, 9 + from, 8 + from, 5 + from,
          4 + from, 5 + from, 4 + from, 1 + from, from, 1 + from, from);
      return Ints{_mm256_shuffle_epi8(pairs.v[0], m), _mm256_shuffle_epi8(pairs.v[1], m)};
    };
    h.scale[0] = twice(0);
    h.scale[1] = twice(2);
    const __m256i offset = _mm256_set1_epi16(kOffset);
    h.correction = {_mm256_mullo_epi16(pairs.v[0], offset), _mm256_mullo_epi16(pairs.v[1], offset)};
    return h;
  }
  static CARAT_INLINE HalfPairs half_pairs(Bytes a, Bytes b) {
    return {_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b)),
            _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b))};
  }
  static CARAT_INLINE Ints pair_dot(HalfPairs p, const int16_t* x) {
    return madd(p, splat_pair(x));
  }

  // |scale| <= 128 and |S| <= 16 * 63 * 128 keep the sums of four madd below 2^28; those with the
  // offset taken off are below 2^24: 2 * 128 * 16 * 32 * 127.
  template <int kMax, int kOffset>
  struct HalfDot {
    static constexpr int kRun = run_of(kMax) < 4 ? run_of(kMax) : 4;
    Ints words[2], total;
    const int16_t* half_sums;

    CARAT_INLINE void begin(const tile::Token& x) { half_sums = x.half_sums; }
    template <int k>
    CARAT_INLINE void add(Codes c, const int8_t* x, const HalfScales& s) {
      constexpr int kHalf = k % 2, kPlace = k / 2;
      const Ints p = products<kMax>(c, x);
      words[kHalf] = kPlace % kRun == 0 ? p : add_words(words[kHalf], p);
      if constexpr ((kPlace + 1) % kRun == 0) {
        const Ints scaled = madd(words[kHalf], s.scale[kHalf]);
        total = k < 2 * kRun - 1 ? scaled : add_ints(total, scaled);
      }
    }
    CARAT_INLINE Floats sum(const HalfScales& s) const {
      if constexpr (kOffset == 0) return to_floats(total);
      return to_floats(sub_ints(total, madd(s.correction, splat_pair(half_sums))));
    }
  };

 private:
  static CARAT_INLINE __m256i lanes_below(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

}  // namespace
}  // namespace carat::kernels
