#include "convert/lattice_run.h"

#if defined(__AVX2__)

#include <immintrin.h>

#include "convert/lattice_run_impl.h"

namespace carat::convert {
namespace {

struct Avx2 {
  static constexpr int kLanes = 8;
  using Floats = float __attribute__((vector_size(32)));
  using Ints = int32_t __attribute__((vector_size(32)));

  static CARAT_RUN_INLINE Ints load(const std::byte* p) {
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return (Ints)_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16);
  }
  static CARAT_RUN_INLINE Ints max(Ints x, Ints y) {
    return (Ints)_mm256_max_epi32((__m256i)x, (__m256i)y);
  }
  static CARAT_RUN_INLINE Floats max(Floats x, Floats y) {
    return (Floats)_mm256_max_ps((__m256)x, (__m256)y);
  }
  static CARAT_RUN_INLINE Floats min(Floats x, Floats y) {
    return (Floats)_mm256_min_ps((__m256)x, (__m256)y);
  }
  static CARAT_RUN_INLINE int32_t largest(Ints x) {
    __m128i v =
        _mm_max_epi32(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
    v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
  }
  static CARAT_RUN_INLINE float highest(Floats x) {
    __m128 v = _mm_max_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    v = _mm_max_ps(v, _mm_permute_ps(v, 0x4e));
    return _mm_cvtss_f32(_mm_max_ps(v, _mm_permute_ps(v, 0xb1)));
  }
  static CARAT_RUN_INLINE float lowest(Floats x) {
    __m128 v = _mm_min_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    v = _mm_min_ps(v, _mm_permute_ps(v, 0x4e));
    return _mm_cvtss_f32(_mm_min_ps(v, _mm_permute_ps(v, 0xb1)));
  }
  static CARAT_RUN_INLINE void round_and_invert(Floats x, Floats& q, Floats& inverse) {
    q = (Floats)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    inverse = 1.0f / q;
  }
  static CARAT_RUN_INLINE uint32_t signs(Ints x) {
    return static_cast<uint32_t>(_mm256_movemask_ps((__m256)x));
  }
  static CARAT_RUN_INLINE void store_codes(const Ints* codes, std::byte* p) {
    const auto low = (__m256i)(codes[0] | (codes[2] << 4));
    const auto high = (__m256i)(codes[1] | (codes[3] << 4));
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  }
  static CARAT_RUN_INLINE bool any(Ints x) { return !_mm256_testz_si256((__m256i)x, (__m256i)x); }
};

}  // namespace

RecoverRun avx2::recover_run() { return recover_run_of<Avx2>; }

}  // namespace carat::convert

#else

namespace carat::convert {
RecoverRun avx2::recover_run() { return nullptr; }
}  // namespace carat::convert

#endif
