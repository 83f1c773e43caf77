// The rotation of int4r: x -> H S x / sqrt(n) with fixed signs S and the Hadamard matrix H, both of
// n elements. It spreads an outlier over all elements, so that the others keep their precision.
// Products of two rotated vectors are those of the vectors. A head whose size is no power of two is
// rotated in pieces, the largest power of two first.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/kv_pages.h"

namespace carat::kernels {

// -1 or 1 for each element, the same in every program that reads such pages.
inline constexpr auto kRotationSigns = [] {
  std::array<float, kMaxHeadDim> signs{};
  for (uint32_t d = 0; d < kMaxHeadDim; ++d) {
    uint32_t h = d * 0x9e3779b1u + 0x7f4a7c15u;
    h ^= h >> 15;
    h *= 0x85ebca77u;
    h ^= h >> 13;
    signs[d] = (h & 1) != 0 ? -1.0f : 1.0f;
  }
  return signs;
}();

// Two steps of the tree below: sums and differences of x, y and of z, w, then of those. T is float,
// or four of them.
template <class T>
void hadamard_of_4(T& x, T& y, T& z, T& w) noexcept {
  const T a = x + y, b = x - y, c = z + w, d = z - w;
  x = a + c;
  y = b + d;
  z = a - c;
  w = b - d;
}

// x [n] times H, n a power of two. Each element is a tree of sums, the nearest neighbours first.
inline void hadamard(float* x, int64_t n) noexcept {
  using Four = float __attribute__((vector_size(16)));
  int64_t half = 1;
  for (; 4 * half <= n; half *= 4) {
    for (int64_t begin = 0; begin < n; begin += 4 * half) {
      float* const p = x + begin;
      if (half == 1) {
        hadamard_of_4(p[0], p[1], p[2], p[3]);
        continue;
      }
      for (int64_t i = 0; i < half; i += 4) {
        Four v[4];
        for (int64_t j = 0; j < 4; ++j) std::memcpy(&v[j], p + i + j * half, sizeof(Four));
        hadamard_of_4(v[0], v[1], v[2], v[3]);
        for (int64_t j = 0; j < 4; ++j) std::memcpy(p + i + j * half, &v[j], sizeof(Four));
      }
    }
  }
  for (int64_t i = 0; i < half && 2 * half == n; ++i) {
    const float low = x[i], high = x[i + half];
    x[i] = low + high;
    x[i + half] = low - high;
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
    for (int64_t d = begin; d < begin + n; ++d)
      y[d] = x[d] * (factor * kRotationSigns[static_cast<size_t>(d)]);
    hadamard(y + begin, n);
  });
}

// The inverse; y may be x.
inline void rotate_back(const float* x, int64_t head_dim, float* y) noexcept {
  for_rotated_pieces(head_dim, [&](int64_t begin, int64_t n, float factor) {
    for (int64_t d = begin; d < begin + n; ++d) y[d] = x[d];
    hadamard(y + begin, n);
    for (int64_t d = begin; d < begin + n; ++d)
      y[d] *= factor * kRotationSigns[static_cast<size_t>(d)];
  });
}

}  // namespace carat::kernels
