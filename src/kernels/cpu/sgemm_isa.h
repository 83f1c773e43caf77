// What an ISA gives to sgemm: the inner tile and the transposing copy.
#pragma once

#include <cstdint>

namespace carat::kernels {

struct SgemmTile {
  int64_t rows;  // of A in a tile, at most 16
  int64_t cols;  // of B in a tile, at most 32
  // C tile = alpha * sum_p a[i * a_row + p * a_col] * b[p * cols + j] + (beta != 0 ? beta * C : 0)
  void (*multiply)(int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* b,
                   float alpha, float beta, float* c, int64_t ldc) noexcept;
  // panel[p * cols + j] = b[j * ldb + p] for j < cols, p < k
  void (*pack_transposed)(int64_t k, const float* b, int64_t ldb, float* panel) noexcept;
};

extern const SgemmTile kSgemmGeneric;
#if defined(__x86_64__)
extern const SgemmTile kSgemmAvx2;
extern const SgemmTile kSgemmAvx512;
#endif

}  // namespace carat::kernels
