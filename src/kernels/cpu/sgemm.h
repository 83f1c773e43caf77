// Matrix product of floats, for training. (Inference multiplies by a matrix through Ops::linear.)
//
//   C = alpha * op(A) * op(B) + beta * C,  op(X) = X or its transpose
//
// Row-major; op(A) is [m, k], op(B) [k, n], C [m, n]; ld* is the distance in elements between rows
// of the matrix as stored. beta = 0 never reads C. C overlaps neither A nor B.
//
// Every element of C is one chain of (fused) multiply-adds in ascending k, broken every
// kSgemmDepth terms, where the partial sum times alpha is added to C: the result does not depend
// on the number of threads. ISAs differ in the last bits.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"

namespace carat::kernels {

inline constexpr int64_t kSgemmDepth = 384;

enum class SgemmIsa : uint8_t { kGeneric, kAvx2, kAvx512 };

// Whether this build and this processor have it.
bool sgemm_supports(SgemmIsa isa);
SgemmIsa sgemm_best_isa();

struct SgemmCall {
  bool transpose_a = false;
  bool transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1;
  const float* a = nullptr;
  int64_t lda = 0;
  const float* b = nullptr;
  int64_t ldb = 0;
  float beta = 0;
  float* c = nullptr;
  int64_t ldc = 0;
};

// Spreads the work over `pool`; without one, on this thread (as is needed inside a loop of a pool).
// Keeps a few megabytes of packed panels per calling thread. REQUIRES: sgemm_supports(isa).
void sgemm(const SgemmCall& call, ThreadPool* pool, SgemmIsa isa = sgemm_best_isa());

}  // namespace carat::kernels
