// Attention over int8 pages in AVX2 (simd/code_attention.h): bytes to 16 bits, two products and
// their sum at a time.
#pragma once

#include "kernels/cpu/avx2/simd.h"

namespace carat::kernels::avx2 {
namespace {

struct CodeIsa {
  struct Ints {
    __m256i v[2];
  };
  struct Floats {
    __m256 v[2];
  };
  using Mask = Ints;
  using Eight = __m256;
  struct Bytes {
    __m256i even[2], odd[2];  // bytes 0 and 2, 1 and 3 of every step as int16
  };
  struct Codes {
    __m256i even, odd;
  };
  using Sum = Ints;
  template <int k>
  struct Count {
    static constexpr int value = k;
  };
  static constexpr int kVectors = 1, kQueries = 4;

  template <class F>
  static CARAT_INLINE Floats floats(F f) {
    return {{f(0), f(1)}};
  }
  template <class F>
  static CARAT_INLINE Ints ints(F f) {
    return {{f(0), f(1)}};
  }

  static CARAT_INLINE Bytes load_bytes(const uint8_t* p) {
    Bytes b;
    for (int h = 0; h < 2; ++h) {
      const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p) + h);
      b.even[h] = _mm256_and_si256(x, _mm256_set1_epi16(0xff));
      b.odd[h] = _mm256_srli_epi16(x, 8);
    }
    return b;
  }
  static CARAT_INLINE Codes load_codes(const int16_t* p) {
    return {broadcast_i32(p), broadcast_i32(p + 2)};
  }
  // Codes 0 2 1 3 of every step.
  static CARAT_INLINE void store_codes(int16_t* p, Ints c) {
    __m256i x = _mm256_permute4x64_epi64(_mm256_packs_epi32(c.v[0], c.v[1]), 0xd8);
    x = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(x, 0xd8), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
  }
  static CARAT_INLINE Sum start(int32_t n) {
    return ints(
        [&](int) { return _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_set1_epi32(n)); });
  }
  // A pair of products stays below 2^31: 2 * 16383 * 255.
  static CARAT_INLINE void add_products(Sum& s, const Bytes& b, const Codes& c) {
    for (int h = 0; h < 2; ++h) {
      s.v[h] = _mm256_add_epi32(s.v[h], _mm256_madd_epi16(b.even[h], c.even));
      s.v[h] = _mm256_add_epi32(s.v[h], _mm256_madd_epi16(b.odd[h], c.odd));
    }
  }
  static CARAT_INLINE Ints total(Sum s) { return s; }

  static CARAT_INLINE Ints load_ints(const int32_t* p) {
    return ints([&](int h) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p) + h); });
  }
  static CARAT_INLINE void store_ints(int32_t* p, Ints x) {
    for (int h = 0; h < 2; ++h) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p) + h, x.v[h]);
    }
  }
  static CARAT_INLINE Ints zero_ints() {
    return ints([](int) { return _mm256_setzero_si256(); });
  }
  static CARAT_INLINE Ints add_ints(Ints a, Ints b) {
    return ints([&](int h) { return _mm256_add_epi32(a.v[h], b.v[h]); });
  }
  static CARAT_INLINE Ints max_ints(Ints a, Ints b) {
    return ints([&](int h) { return _mm256_max_epi32(a.v[h], b.v[h]); });
  }
  static CARAT_INLINE Ints magnitude(Floats x) {
    return ints([&](int h) {
      return _mm256_and_si256(_mm256_castps_si256(x.v[h]), _mm256_set1_epi32(0x7fffffff));
    });
  }
  static CARAT_INLINE uint32_t largest_int(Ints x) {
    const __m256i w = _mm256_max_epi32(x.v[0], x.v[1]);
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
  }
  static CARAT_INLINE int32_t sum_ints(Ints x) {
    const __m256i w = _mm256_add_epi32(x.v[0], x.v[1]);
    __m128i m = _mm_add_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtsi128_si32(m);
  }
  static CARAT_INLINE Ints round(Floats x) {
    return ints([&](int h) { return _mm256_cvtps_epi32(x.v[h]); });
  }
  static CARAT_INLINE Floats to_floats(Ints x) {
    return floats([&](int h) { return _mm256_cvtepi32_ps(x.v[h]); });
  }

  static CARAT_INLINE Floats load(const float* p) {
    return floats([&](int h) { return _mm256_loadu_ps(p + 8 * h); });
  }
  static CARAT_INLINE Floats load(const float* p, int64_t n) {
    return floats([&](int h) { return _mm256_maskload_ps(p + 8 * h, part(n, h)); });
  }
  static CARAT_INLINE void store(float* p, Floats x) {
    for (int h = 0; h < 2; ++h) _mm256_storeu_ps(p + 8 * h, x.v[h]);
  }
  static CARAT_INLINE void store(float* p, Floats x, int64_t n) {
    for (int h = 0; h < 2; ++h) _mm256_maskstore_ps(p + 8 * h, part(n, h), x.v[h]);
  }
  static CARAT_INLINE Floats splat(float x) {
    return floats([&](int) { return _mm256_set1_ps(x); });
  }
  static CARAT_INLINE Floats mul(Floats a, Floats b) {
    return floats([&](int h) { return _mm256_mul_ps(a.v[h], b.v[h]); });
  }
  static CARAT_INLINE Floats sub(Floats a, Floats b) {
    return floats([&](int h) { return _mm256_sub_ps(a.v[h], b.v[h]); });
  }
  static CARAT_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return floats([&](int h) { return _mm256_fmadd_ps(a.v[h], b.v[h], c.v[h]); });
  }
  static CARAT_INLINE Floats max(Floats a, Floats b) {
    return floats([&](int h) { return _mm256_max_ps(a.v[h], b.v[h]); });
  }
  static CARAT_INLINE Floats exp(Floats x) {
    return floats([&](int h) { return exp_of(x.v[h]); });
  }
  static CARAT_INLINE float largest(Floats x) {
    const __m256 w = _mm256_max_ps(x.v[0], x.v[1]);
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  static CARAT_INLINE Eight zero_eight() { return _mm256_setzero_ps(); }
  static CARAT_INLINE Eight add_halves(Eight s, Floats x) {
    return _mm256_add_ps(_mm256_add_ps(s, x.v[0]), x.v[1]);
  }
  static CARAT_INLINE float add_lanes(Eight s) { return avx2::add_lanes(s); }

  // Lanes [begin, end).
  static CARAT_INLINE Mask lanes(int32_t begin, int32_t end) {
    return ints([&](int h) {
      const __m256i i =
          _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(8 * h));
      return _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(begin), i),
                                 _mm256_cmpgt_epi32(_mm256_set1_epi32(end), i));
    });
  }
  static CARAT_INLINE Floats select(Mask m, Floats a, Floats b) {
    return floats(
        [&](int h) { return _mm256_blendv_ps(b.v[h], a.v[h], _mm256_castsi256_ps(m.v[h])); });
  }

  static CARAT_INLINE __m256i part(int64_t n, int h) {
    const int64_t here = n - 8 * h;
    return mask_of(here < 0 ? 0 : here > 8 ? 8 : here);
  }
};

}  // namespace
}  // namespace carat::kernels::avx2
