// Rotary position embedding.
#pragma once

#include <cmath>
#include <cstdint>

namespace carat::kernels::scalar {

// cos and sin of position * inverse_frequency[i] for i < n_pairs. The angle is a float product; its
// cos and sin are computed in double and rounded once.
template <class T>
void rope_turns(int32_t position, const float* inverse_frequency, int64_t n_pairs, T* cos,
                T* sin) noexcept {
  for (int64_t i = 0; i < n_pairs; ++i) {
    const double angle = static_cast<float>(position) * inverse_frequency[i];
    cos[i] = static_cast<T>(std::cos(angle));
    sin[i] = static_cast<T>(std::sin(angle));
  }
}

// Turns one head: pair i is (x[i], x[i + head_dim / 2]). Pairs from n_pairs on (whose frequency is
// 0) are copied. y may be x. REQUIRES: n_pairs <= head_dim / 2.
template <class T>
void rope_head(const T* x, const T* cos, const T* sin, int64_t n_pairs, int64_t head_dim,
               T* y) noexcept {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const T a = x[i], b = x[i + half];
    y[i] = i < n_pairs ? std::fma(a, cos[i], -(b * sin[i])) : a;
    y[i + half] = i < n_pairs ? std::fma(b, cos[i], a * sin[i]) : b;
  }
}

}  // namespace carat::kernels::scalar
