// Four numbers at a time, in what every 64-bit machine has. Element-wise, so results are those of
// the scalar loop.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace carat::convert {

inline constexpr int kLanes = 4;
using Floats = float __attribute__((vector_size(16)));
using Ints = int32_t __attribute__((vector_size(16)));  // a comparison gives -1 or 0 per lane

inline float as_float(uint32_t bits) noexcept { return std::bit_cast<float>(bits); }
inline uint32_t as_bits(float x) noexcept { return std::bit_cast<uint32_t>(x); }
inline Floats as_floats(Ints x) noexcept { return std::bit_cast<Floats>(x); }
inline Ints as_ints(Floats x) noexcept { return std::bit_cast<Ints>(x); }
inline Floats all(float x) noexcept { return Floats{x, x, x, x}; }
inline Ints all(int32_t x) noexcept { return Ints{x, x, x, x}; }

template <class V, class T>
inline V load(const T* p) noexcept {
  V v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
template <class V, class T>
inline void store(T* p, V v) noexcept {
  std::memcpy(p, &v, sizeof(v));
}

// To the nearest integer, halves to even. REQUIRES: |x| < 2^22.
inline Floats round_to_even(Floats x) noexcept {
  const Floats bias = all(12582912.0f);  // 1.5 * 2^23
  return (x + bias) - bias;
}

}  // namespace carat::convert
