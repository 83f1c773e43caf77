#include "maddubs_floor.h"

#include <immintrin.h>

int64_t run_maddubs_floor(int64_t steps, int16_t* sink) noexcept {
  constexpr int kChains = 12;
  __m256i acc[kChains];
  const __m256i w = _mm256_set1_epi8(static_cast<char>(*sink & 7));
  const __m256i x = _mm256_set1_epi8(static_cast<char>(*sink & 3));
  for (int i = 0; i < kChains; ++i) acc[i] = _mm256_set1_epi16(static_cast<int16_t>(i));
  for (int64_t s = 0; s < steps; ++s) {
    for (int i = 0; i < kChains; ++i) {
      __m256i product;
      // In assembly, so that the compiler does not see that the products repeat.
      __asm__ volatile("vpmaddubsw %2, %1, %0" : "=x"(product) : "x"(w), "x"(x));
      acc[i] = _mm256_add_epi16(acc[i], product);
    }
  }
  __m256i sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm256_add_epi16(sum, acc[i]);
  *sink = static_cast<int16_t>(_mm256_extract_epi16(sum, 0));
  return steps * kChains * 32;
}
