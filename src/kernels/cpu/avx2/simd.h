// Helpers of the AVX2 leaf files. Everything is in an anonymous namespace and always inlined, so
// that no symbol leaves the object.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/scalar/constants.h"

#define CARAT_INLINE inline __attribute__((always_inline))

namespace carat::kernels::avx2 {
namespace {

alignas(32) constexpr int32_t kMaskTable[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

// Lanes 0..n-1 set, 0 <= n <= 8.
CARAT_INLINE __m256i mask_of(int64_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMaskTable + 8 - n));
}

CARAT_INLINE int32_t load_i32(const void* p) {
  int32_t v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
CARAT_INLINE __m256i broadcast_i32(const void* p) { return _mm256_set1_epi32(load_i32(p)); }
CARAT_INLINE __m128i load_128(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
CARAT_INLINE __m256i load_2x128(const void* low, const void* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load_128(low)), load_128(high), 1);
}

// ((0+4)+(2+6))+((1+5)+(3+7))
CARAT_INLINE float add_lanes(__m256 v) {
  const __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 t = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}

// The same of four vectors at once.
CARAT_INLINE __m128 add_lanes(__m256 a, __m256 b, __m256 c, __m256 d) {
  // [a | c] and [b | d], then the pairs (0+4)+(2+6) and (1+5)+(3+7) of each side by side.
  const __m256 ac =
      _mm256_add_ps(_mm256_permute2f128_ps(a, c, 0x20), _mm256_permute2f128_ps(a, c, 0x31));
  const __m256 bd =
      _mm256_add_ps(_mm256_permute2f128_ps(b, d, 0x20), _mm256_permute2f128_ps(b, d, 0x31));
  const __m256d ac2 = _mm256_castps_pd(ac), bd2 = _mm256_castps_pd(bd);
  const __m256 pairs = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(ac2, bd2)),
                                     _mm256_castpd_ps(_mm256_unpackhi_pd(ac2, bd2)));
  const __m128 ab = _mm256_castps256_ps128(pairs), cd = _mm256_extractf128_ps(pairs, 1);
  return _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xdd));
}

// The canonical dot product.
CARAT_INLINE float dot(const float* a, const float* b, int64_t n) {
  __m256 acc = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    acc = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), acc);
  }
  if (i < n) {
    const __m256i mask = mask_of(n - i);
    acc = _mm256_fmadd_ps(_mm256_maskload_ps(a + i, mask), _mm256_maskload_ps(b + i, mask), acc);
  }
  return add_lanes(acc);
}

// scalar::exp_of, operation by operation.
CARAT_INLINE __m256 exp_of(__m256 x) {
  const __m256 shift = _mm256_set1_ps(scalar::kRoundShift);
  x = _mm256_max_ps(_mm256_set1_ps(scalar::kExpLow), x);  // NaN in the second operand stays
  x = _mm256_min_ps(_mm256_set1_ps(scalar::kExpHigh), x);
  const __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(scalar::kLog2E), shift);
  const __m256 n = _mm256_sub_ps(shifted, shift);
  __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-scalar::kLn2High), x);
  r = _mm256_fmadd_ps(n, _mm256_set1_ps(-scalar::kLn2Low), r);
  __m256 p = _mm256_set1_ps(scalar::kExpPoly[0]);
  for (int i = 1; i < 5; ++i) p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(scalar::kExpPoly[i]));
  p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
  const __m256i whole = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(shift));
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}

CARAT_INLINE float exp_of(float x) { return _mm256_cvtss_f32(exp_of(_mm256_set1_ps(x))); }

// scalar::tanh_of, operation by operation.
CARAT_INLINE __m256 tanh_of(__m256 x) {
  const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
  const __m256 a = _mm256_andnot_ps(sign, x);
  const __m256 z = _mm256_mul_ps(x, x);
  __m256 p = _mm256_set1_ps(scalar::kTanhPoly[0]);
  for (int i = 1; i < 5; ++i) p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(scalar::kTanhPoly[i]));
  const __m256 small = _mm256_fmadd_ps(_mm256_mul_ps(p, z), x, x);
  const __m256 e = _mm256_add_ps(exp_of(_mm256_add_ps(a, a)), one);
  __m256 large = _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), e));
  large = _mm256_or_ps(_mm256_andnot_ps(sign, large), _mm256_and_ps(sign, x));
  const __m256 is_small = _mm256_cmp_ps(a, _mm256_set1_ps(scalar::kTanhSmall), _CMP_LT_OQ);
  return _mm256_blendv_ps(large, small, is_small);
}

// f(i, load, store) over 8 elements at a time, the tail through a mask: load(p) reads p[i..] and
// store(p, v) writes it.
template <class F>
CARAT_INLINE void for_each_8(int64_t n, F f) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    f([i](const float* p) { return _mm256_loadu_ps(p + i); },
      [i](float* p, __m256 v) { _mm256_storeu_ps(p + i, v); });
  }
  if (i < n) {
    const __m256i mask = mask_of(n - i);
    f([i, mask](const float* p) { return _mm256_maskload_ps(p + i, mask); },
      [i, mask](float* p, __m256 v) { _mm256_maskstore_ps(p + i, mask, v); });
  }
}

}  // namespace
}  // namespace carat::kernels::avx2
