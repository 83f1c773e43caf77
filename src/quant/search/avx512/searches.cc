#if defined(__x86_64__)

#include "quant/search/searches.h"

#include <immintrin.h>

#include "quant/search/isa_tables.h"

namespace carat::quant::search {
namespace {

struct Avx512 {
  static constexpr int kWidth = 16;
  using Floats = float __attribute__((vector_size(64)));
  using Ints = int32_t __attribute__((vector_size(64)));
  using Halves = float __attribute__((vector_size(32)));
  using Doubles = double __attribute__((vector_size(64)));

  static CARAT_SEARCH Floats clamp(Floats v, Floats lo, Floats hi) {
    // With all of a mask set: gcc warns of what the plain ones leave undefined.
    const __m512 low = _mm512_mask_max_ps((__m512)v, 0xffff, (__m512)v, (__m512)lo);
    return (Floats)_mm512_mask_min_ps(low, 0xffff, low, (__m512)hi);
  }
  static CARAT_SEARCH int compress(float* to, Floats v, Ints keep) {
    const __mmask16 mask = _mm512_movepi32_mask((__m512i)keep);
    _mm512_storeu_ps(to, _mm512_maskz_compress_ps(mask, (__m512)v));
    return __builtin_popcount(mask);
  }
  static CARAT_SEARCH Floats iq4_levels(Floats v) {
    const Floats lowest = all<Avx512>(Iq4Cells::kLowest), highest = all<Avx512>(Iq4Cells::kHighest);
    const Floats place = (v = clamp(v, lowest, highest)) * Iq4Cells::kFactor + Iq4Cells::kShift;
    const __m512i cell = (__m512i)(place + kMagic);
    const __m512 middle =
        _mm512_maskz_permutexvar_ps(0xffff, cell, _mm512_load_ps(kIq4Cells.middle));
    const __mmask16 above = _mm512_cmp_ps_mask((__m512)v, middle, _CMP_GT_OQ);
    const __m512 below = _mm512_maskz_permutexvar_ps(0xffff, cell, _mm512_load_ps(kIq4Cells.below));
    return (Floats)_mm512_mask_permutexvar_ps(below, above, cell, _mm512_load_ps(kIq4Cells.above));
  }
};

}  // namespace

const Searches kAvx512Searches = searches_of<Avx512>("avx512");

}  // namespace carat::quant::search

#endif
