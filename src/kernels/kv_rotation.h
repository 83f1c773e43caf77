// The rotation of int4r: x -> H S x / sqrt(n) with fixed signs S and the Hadamard matrix H, both of
// n elements. It spreads an outlier over all elements, so that the others keep their precision.
// Products of two rotated vectors are those of the vectors. A head whose size is no power of two is
// rotated in pieces, the largest power of two first.
#pragma once

#include <cmath>
#include <cstdint>

namespace carat::kernels {

// -1 or 1, the same in every program that reads such pages.
inline constexpr float rotation_sign(int64_t d) {
  uint32_t h = static_cast<uint32_t>(d) * 0x9e3779b1u + 0x7f4a7c15u;
  h ^= h >> 15;
  h *= 0x85ebca77u;
  h ^= h >> 13;
  return (h & 1) != 0 ? -1.0f : 1.0f;
}

// x [n] times H, n a power of two. Each element is a tree of sums, the nearest neighbours first.
inline void hadamard(float* x, int64_t n) noexcept {
  for (int64_t half = 1; half < n; half *= 2) {
    for (int64_t begin = 0; begin < n; begin += 2 * half) {
      float *a = x + begin, *b = a + half;
      for (int64_t i = 0; i < half; ++i) {
        const float low = a[i], high = b[i];
        a[i] = low + high;
        b[i] = low - high;
      }
    }
  }
}

// f(piece, its length, 1 / sqrt(length)) for the pieces of a head.
template <class F>
void for_rotated_pieces(int64_t head_dim, F&& f) noexcept {
  for (int64_t begin = 0; begin < head_dim;) {
    int64_t n = 1;
    while (2 * n <= head_dim - begin) n *= 2;
    f(begin, n, 1.0f / std::sqrt(static_cast<float>(n)));
    begin += n;
  }
}

// y [head_dim] = x rotated; y may be x.
inline void rotate(const float* x, int64_t head_dim, float* y) noexcept {
  for_rotated_pieces(head_dim, [&](int64_t begin, int64_t n, float factor) {
    for (int64_t d = begin; d < begin + n; ++d) y[d] = x[d] * (factor * rotation_sign(d));
    hadamard(y + begin, n);
  });
}

// The inverse; y may be x.
inline void rotate_back(const float* x, int64_t head_dim, float* y) noexcept {
  for_rotated_pieces(head_dim, [&](int64_t begin, int64_t n, float factor) {
    for (int64_t d = begin; d < begin + n; ++d) y[d] = x[d];
    hadamard(y + begin, n);
    for (int64_t d = begin; d < begin + n; ++d) y[d] *= factor * rotation_sign(d);
  });
}

}  // namespace carat::kernels
