#include "convert/lattice_run.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__)

// gcc 12 takes the undefined vectors of its own header for a fault.
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "convert/lattice_run_impl.h"

namespace carat::convert {
namespace {

struct Avx512 {
  static constexpr int kLanes = 16;
  using Floats = float __attribute__((vector_size(64)));
  using Ints = int32_t __attribute__((vector_size(64)));

  static CARAT_RUN_INLINE Ints load(const std::byte* p) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return (Ints)_mm512_cvtepu16_epi32(words) << 16;
  }
  static CARAT_RUN_INLINE Ints max(Ints x, Ints y) {
    return (Ints)_mm512_max_epi32((__m512i)x, (__m512i)y);
  }
  static CARAT_RUN_INLINE Floats max(Floats x, Floats y) {
    return (Floats)_mm512_max_ps((__m512)x, (__m512)y);
  }
  static CARAT_RUN_INLINE Floats min(Floats x, Floats y) {
    return (Floats)_mm512_min_ps((__m512)x, (__m512)y);
  }
  static CARAT_RUN_INLINE int32_t largest(Ints x) { return _mm512_reduce_max_epi32((__m512i)x); }
  static CARAT_RUN_INLINE float highest(Floats x) { return _mm512_reduce_max_ps((__m512)x); }
  static CARAT_RUN_INLINE float lowest(Floats x) { return _mm512_reduce_min_ps((__m512)x); }
  // The integer stands in the lowest bits of the rounded sum, where a table takes it from.
  static CARAT_RUN_INLINE void round_and_invert(Floats x, Floats& q, Floats& inverse) {
    constexpr float kBias = 12582912.0f;  // 1.5 * 2^23
    const __m512 table =
        _mm512_setr_ps(__builtin_inff(), 1.0f, 1.0f / 2, 1.0f / 3, 1.0f / 4, 1.0f / 5, 1.0f / 6,
                       1.0f / 7, 1.0f / 8, 0, 0, 0, 0, 0, 0, 0);
    const Floats sum = x + kBias;
    q = sum - kBias;
    inverse = (Floats)_mm512_permutexvar_ps((__m512i)sum, table);
  }
  static CARAT_RUN_INLINE uint32_t signs(Ints x) { return _mm512_movepi32_mask((__m512i)x); }
  static CARAT_RUN_INLINE void store_codes(const Ints* codes, std::byte* p) {
    const auto both = (__m512i)(codes[0] | (codes[1] << 4));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(both));
  }
  static CARAT_RUN_INLINE bool any(Ints x) {
    return _mm512_test_epi32_mask((__m512i)x, (__m512i)x) != 0;
  }
};

}  // namespace

RecoverRun avx512::recover_run() { return recover_run_of<Avx512>; }

}  // namespace carat::convert

#else

namespace carat::convert {
RecoverRun avx512::recover_run() { return nullptr; }
}  // namespace carat::convert

#endif
