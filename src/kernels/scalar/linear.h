// Dot products and the linear layer.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/scalar/math.h"

namespace carat::kernels::scalar {

// sum of a[i] * b[i], i < n: 8 lanes, fused multiply-adds in ascending order, the fixed tree; a
// tail shorter than 8 counts as padded with zeros.
template <class T>
T dot(const T* a, const T* b, int64_t n) noexcept {
  T lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lane[l] = std::fma(a[i + l], b[i + l], lane[l]);
  }
  if (i < n) {
    T at[kLanes] = {}, bt[kLanes] = {};
    std::copy(a + i, a + n, at);
    std::copy(b + i, b + n, bt);
    for (int64_t l = 0; l < kLanes; ++l) lane[l] = std::fma(at[l], bt[l], lane[l]);
  }
  return add_lanes(lane);
}

// y[t, o] = sum_i x[t, i] * w[o, i]; x [n, cols], w [rows, cols], y [n, rows], all row-major.
template <class T>
void linear(const T* x, int64_t n, const T* w, int64_t rows, int64_t cols, T* y) noexcept {
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t o = 0; o < rows; ++o) y[t * rows + o] = dot(x + t * cols, w + o * cols, cols);
  }
}

// y = x * factor; what follows the look-up of an embedding row.
template <class T>
void scale(const T* x, int64_t n, T factor, T* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * factor;
}

}  // namespace carat::kernels::scalar
