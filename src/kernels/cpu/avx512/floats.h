// Floats of the AVX-512 leaf files: the canonical sum and exp, 16 at a time. Everything is in an
// anonymous namespace and always inlined, so that no symbol leaves the object.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/scalar/constants.h"

#ifndef CARAT_INLINE
#define CARAT_INLINE inline __attribute__((always_inline))
#endif

namespace carat::kernels::avx512 {
namespace {

// Lanes 0..n-1, 0 <= n <= 16.
CARAT_INLINE __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

// ((0+4)+(2+6))+((1+5)+(3+7))
CARAT_INLINE float add_lanes(__m256 v) {
  const __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 t = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}

// scalar::exp_of, operation by operation.
CARAT_INLINE __m512 exp_of(__m512 x) {
  const __m512 shift = _mm512_set1_ps(scalar::kRoundShift);
  x = _mm512_max_ps(_mm512_set1_ps(scalar::kExpLow), x);  // NaN in the second operand stays
  x = _mm512_min_ps(_mm512_set1_ps(scalar::kExpHigh), x);
  const __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(scalar::kLog2E), shift);
  const __m512 n = _mm512_sub_ps(shifted, shift);
  __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-scalar::kLn2High), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(-scalar::kLn2Low), r);
  __m512 p = _mm512_set1_ps(scalar::kExpPoly[0]);
  for (int i = 1; i < 5; ++i) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(scalar::kExpPoly[i]));
  p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
  const __m512i whole = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(shift));
  const __m512i half = _mm512_srai_epi32(whole, 1);
  const __m512i bias = _mm512_set1_epi32(127);
  const __m512i a = _mm512_slli_epi32(_mm512_add_epi32(half, bias), 23);
  const __m512i b = _mm512_slli_epi32(_mm512_add_epi32(_mm512_sub_epi32(whole, half), bias), 23);
  return _mm512_mul_ps(_mm512_mul_ps(p, _mm512_castsi512_ps(a)), _mm512_castsi512_ps(b));
}

}  // namespace
}  // namespace carat::kernels::avx512
