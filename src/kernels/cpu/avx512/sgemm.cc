#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/sgemm_isa.h"

namespace carat::kernels {
namespace {

constexpr int kTileRows = 8;
constexpr int kTileCols = 32;

void multiply(int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* b, float alpha,
              float beta, float* c, int64_t ldc) noexcept {
  __m512 sum[kTileRows][2];
#pragma GCC unroll 8
  for (int i = 0; i < kTileRows; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
  const float* a1 = a + a_row;
  const float* a2 = a1 + a_row;
  const float* a3 = a2 + a_row;
  const float* a4 = a3 + a_row;
  const float* a5 = a4 + a_row;
  const float* a6 = a5 + a_row;
  const float* a7 = a6 + a_row;
  for (int64_t p = 0; p < k; ++p) {
    const __m512 b0 = _mm512_load_ps(b);
    const __m512 b1 = _mm512_load_ps(b + 16);
    b += kTileCols;
    const int64_t o = p * a_col;
    const float* rows[kTileRows] = {a, a1, a2, a3, a4, a5, a6, a7};
#pragma GCC unroll 8
    for (int i = 0; i < kTileRows; ++i) {
      const __m512 x = _mm512_set1_ps(rows[i][o]);
      sum[i][0] = _mm512_fmadd_ps(x, b0, sum[i][0]);
      sum[i][1] = _mm512_fmadd_ps(x, b1, sum[i][1]);
    }
  }
  const __m512 va = _mm512_set1_ps(alpha);
  const __m512 vb = _mm512_set1_ps(beta);
#pragma GCC unroll 8
  for (int i = 0; i < kTileRows; ++i) {
    float* row = c + i * ldc;
    __m512 y0 = _mm512_mul_ps(va, sum[i][0]);
    __m512 y1 = _mm512_mul_ps(va, sum[i][1]);
    if (beta != 0) {
      y0 = _mm512_fmadd_ps(vb, _mm512_loadu_ps(row), y0);
      y1 = _mm512_fmadd_ps(vb, _mm512_loadu_ps(row + 16), y1);
    }
    _mm512_storeu_ps(row, y0);
    _mm512_storeu_ps(row + 16, y1);
  }
}

void pack_transposed(int64_t k, const float* b, int64_t ldb, float* panel) noexcept {
  if (ldb * 16 > INT32_MAX) {
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t j = 0; j < kTileCols; ++j) panel[p * kTileCols + j] = b[j * ldb + p];
    }
    return;
  }
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i index = _mm512_mullo_epi32(lane, _mm512_set1_epi32(static_cast<int>(ldb)));
  const auto gather = [&](const float* from) {
    return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, index, from, 4);
  };
  for (int64_t p = 0; p < k; ++p) {
    _mm512_store_ps(panel + p * kTileCols, gather(b + p));
    _mm512_store_ps(panel + p * kTileCols + 16, gather(b + 16 * ldb + p));
  }
}

}  // namespace

const SgemmTile kSgemmAvx512 = {kTileRows, kTileCols, multiply, pack_transposed};

}  // namespace carat::kernels

#endif
