// Root-mean-square normalisation.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/scalar/linear.h"

namespace carat::kernels::scalar {

// (mean(x^2) + eps)^(-1/2) over n elements; the sum of squares is the canonical dot of x and x.
template <class T>
T rms_factor(const T* x, int64_t n, T eps) noexcept {
  return T(1) / std::sqrt(dot(x, x, n) / static_cast<T>(n) + eps);
}

// y = x * (mean(x^2) + eps)^(-1/2) * w for one group of n elements; w may be null (all ones).
template <class T>
void rms_norm(const T* x, const T* w, int64_t n, T eps, T* y) noexcept {
  const T r = rms_factor(x, n, eps);
  for (int64_t i = 0; i < n; ++i) y[i] = w ? (x[i] * r) * w[i] : x[i] * r;
}

}  // namespace carat::kernels::scalar
