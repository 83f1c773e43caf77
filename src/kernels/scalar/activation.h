// Pointwise functions.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/scalar/math.h"

namespace carat::kernels::scalar {

// x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3), computed as x / (1 + exp(-2u)), which is
// the same and keeps its relative accuracy for negative x.
template <class T>
T gelu_tanh(T x) noexcept {
  const T cubic = static_cast<T>(kGeluCubic) * (x * x);
  const T u = static_cast<T>(-2.0 * kSqrt2OverPi) * std::fma(cubic, x, x);
  return x / (T(1) + exp_of(u));
}

// y = gelu(gate) * up
template <class T>
void geglu(const T* gate, const T* up, int64_t n, T* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = gelu_tanh(gate[i]) * up[i];
}

// y = cap * tanh(x / cap)
template <class T>
void softcap(const T* x, int64_t n, T cap, T* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = cap * tanh_of(x[i] / cap);
}

}  // namespace carat::kernels::scalar
