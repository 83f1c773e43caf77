#if defined(__x86_64__)

#include "quant/search/searches.h"

#include <immintrin.h>

#include "quant/search/isa_tables.h"

namespace carat::quant::search {
namespace {

struct Avx2 {
  static constexpr int kWidth = 8;
  using Floats = float __attribute__((vector_size(32)));
  using Ints = int32_t __attribute__((vector_size(32)));
  using Halves = float __attribute__((vector_size(16)));
  using Doubles = double __attribute__((vector_size(32)));

  static CARAT_SEARCH Floats clamp(Floats v, Floats lo, Floats hi) {
    return (Floats)_mm256_min_ps(_mm256_max_ps((__m256)v, (__m256)lo), (__m256)hi);
  }
  static CARAT_SEARCH int compress(float* to, Floats v, Ints keep) {
    return compress_lanes<Avx2>(to, v, keep);
  }
  static CARAT_SEARCH __m256 look_up(const float* table, __m256i cell) {
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), cell);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), cell);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(cell, 28)));
  }
  static CARAT_SEARCH Floats iq4_levels(Floats v) {
    const Floats lowest = all<Avx2>(Iq4Cells::kLowest), highest = all<Avx2>(Iq4Cells::kHighest);
    const Floats place = (v = clamp(v, lowest, highest)) * Iq4Cells::kFactor + Iq4Cells::kShift;
    const __m256i cell = (__m256i)(place + kMagic);
    const __m256 above = _mm256_cmp_ps((__m256)v, look_up(kIq4Cells.middle, cell), _CMP_GT_OQ);
    return (Floats)_mm256_blendv_ps(look_up(kIq4Cells.below, cell), look_up(kIq4Cells.above, cell),
                                    above);
  }
};

}  // namespace

const Searches kAvx2Searches = searches_of<Avx2>("avx2");

}  // namespace carat::quant::search

#endif
