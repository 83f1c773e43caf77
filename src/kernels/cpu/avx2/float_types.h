// Elements of float matrices and their lanes on AVX2 (kernels/cpu/tile/float_rows.h).
#pragma once

#include "kernels/cpu/avx2/simd.h"

namespace carat::kernels {
namespace {

struct F32Row {
  static constexpr int64_t kBytes = 4;
  static CARAT_INLINE __m256 load(const void* p) {
    return _mm256_loadu_ps(static_cast<const float*>(p));
  }
};
struct F16Row {
  static constexpr int64_t kBytes = 2;
  static CARAT_INLINE __m256 load(const void* p) { return _mm256_cvtph_ps(avx2::load_128(p)); }
};
struct BF16Row {
  static constexpr int64_t kBytes = 2;
  static CARAT_INLINE __m256 load(const void* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(avx2::load_128(p)), 16));
  }
};

struct Avx2Floats {
  using Half = __m256;
  using Vec = __m256;
  static constexpr int64_t kRows = 1;
  static constexpr int kVectors = 4, kTokens = 3, kSeveralTokens = 12;

  static CARAT_INLINE Half zero_half() { return _mm256_setzero_ps(); }
  static CARAT_INLINE Half load_half(const float* p) { return _mm256_loadu_ps(p); }
  static CARAT_INLINE Half load_half(const float* p, int64_t n) {
    return _mm256_maskload_ps(p, avx2::mask_of(n));
  }
  static CARAT_INLINE void store_half(float* p, Half v) { _mm256_storeu_ps(p, v); }
  static CARAT_INLINE Half fma_half(Half a, Half b, Half c) { return _mm256_fmadd_ps(a, b, c); }
  static CARAT_INLINE float add_lanes(Half v) { return avx2::add_lanes(v); }
  static CARAT_INLINE void add_lanes(float* out, Half a, Half b, Half c, Half d) {
    _mm_storeu_ps(out, avx2::add_lanes(a, b, c, d));
  }
  static CARAT_INLINE void prefetch(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
  static CARAT_INLINE void prefetch_far(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
  }

  static CARAT_INLINE Vec zero() { return _mm256_setzero_ps(); }
  static CARAT_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static CARAT_INLINE void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
  static CARAT_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static CARAT_INLINE Vec eight(const float* p) { return load_half(p); }
  static CARAT_INLINE Vec eight(const float* p, int64_t n) { return load_half(p, n); }
};

}  // namespace
}  // namespace carat::kernels
