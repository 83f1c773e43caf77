// The matrix product of the tape's two element types. See kernels/cpu/sgemm.h for the meaning of
// the arguments; double is the plain loop.
#pragma once

#include "kernels/cpu/sgemm.h"

namespace carat::train {

template <class T>
struct Gemm {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  T alpha = 1;
  const T* a = nullptr;
  int64_t lda = 0;
  const T* b = nullptr;
  int64_t ldb = 0;
  T beta = 0;
  T* c = nullptr;
  int64_t ldc = 0;
};

inline void multiply(const Gemm<float>& g, ThreadPool* pool) {
  kernels::sgemm({g.transpose_a, g.transpose_b, g.m, g.n, g.k, g.alpha, g.a, g.lda, g.b, g.ldb,
                  g.beta, g.c, g.ldc},
                 pool);
}

inline void multiply(const Gemm<double>& g, ThreadPool*) {
  const int64_t a_row = g.transpose_a ? 1 : g.lda, a_col = g.transpose_a ? g.lda : 1;
  const int64_t b_row = g.transpose_b ? 1 : g.ldb, b_col = g.transpose_b ? g.ldb : 1;
  for (int64_t i = 0; i < g.m; ++i) {
    for (int64_t j = 0; j < g.n; ++j) {
      double sum = 0;
      for (int64_t p = 0; p < g.k; ++p)
        sum += g.a[i * a_row + p * a_col] * g.b[p * b_row + j * b_col];
      double& c = g.c[i * g.ldc + j];
      c = g.beta != 0 ? g.alpha * sum + g.beta * c : g.alpha * sum;
    }
  }
}

}  // namespace carat::train
