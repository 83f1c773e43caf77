#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/sgemm_isa.h"

namespace carat::kernels {
namespace {

constexpr int kTileRows = 6;
constexpr int kTileCols = 16;

void multiply(int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* b, float alpha,
              float beta, float* c, int64_t ldc) noexcept {
  __m256 sum[kTileRows][2];
#pragma GCC unroll 6
  for (int i = 0; i < kTileRows; ++i) sum[i][0] = sum[i][1] = _mm256_setzero_ps();
  for (int64_t p = 0; p < k; ++p) {
    const __m256 b0 = _mm256_load_ps(b);
    const __m256 b1 = _mm256_load_ps(b + 8);
    b += kTileCols;
    const float* x = a + p * a_col;
#pragma GCC unroll 6
    for (int i = 0; i < kTileRows; ++i) {
      const __m256 v = _mm256_broadcast_ss(x + i * a_row);
      sum[i][0] = _mm256_fmadd_ps(v, b0, sum[i][0]);
      sum[i][1] = _mm256_fmadd_ps(v, b1, sum[i][1]);
    }
  }
  const __m256 va = _mm256_set1_ps(alpha);
  const __m256 vb = _mm256_set1_ps(beta);
#pragma GCC unroll 6
  for (int i = 0; i < kTileRows; ++i) {
    float* row = c + i * ldc;
    __m256 y0 = _mm256_mul_ps(va, sum[i][0]);
    __m256 y1 = _mm256_mul_ps(va, sum[i][1]);
    if (beta != 0) {
      y0 = _mm256_fmadd_ps(vb, _mm256_loadu_ps(row), y0);
      y1 = _mm256_fmadd_ps(vb, _mm256_loadu_ps(row + 8), y1);
    }
    _mm256_storeu_ps(row, y0);
    _mm256_storeu_ps(row + 8, y1);
  }
}

void pack_transposed(int64_t k, const float* b, int64_t ldb, float* panel) noexcept {
  if (ldb * 16 > INT32_MAX) {
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t j = 0; j < kTileCols; ++j) panel[p * kTileCols + j] = b[j * ldb + p];
    }
    return;
  }
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i index = _mm256_mullo_epi32(lane, _mm256_set1_epi32(static_cast<int>(ldb)));
  for (int64_t p = 0; p < k; ++p) {
    _mm256_store_ps(panel + p * kTileCols, _mm256_i32gather_ps(b + p, index, 4));
    _mm256_store_ps(panel + p * kTileCols + 8, _mm256_i32gather_ps(b + 8 * ldb + p, index, 4));
  }
}

}  // namespace

const SgemmTile kSgemmAvx2 = {kTileRows, kTileCols, multiply, pack_transposed};

}  // namespace carat::kernels

#endif
