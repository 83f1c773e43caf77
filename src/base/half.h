// IEEE binary16 and bfloat16 to and from float, in portable integer arithmetic: bit-identical on
// every machine, and the oracle of the vector versions.
#pragma once

#include <bit>
#include <cstdint>

namespace carat {

struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};

// Exact.
[[nodiscard]] constexpr float to_float(BF16 v) {
  return std::bit_cast<float>(static_cast<uint32_t>(v.bits) << 16);
}

// Round to nearest even; NaN stays NaN (made quiet).
[[nodiscard]] constexpr BF16 to_bf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

// Exact, subnormals included.
[[nodiscard]] constexpr float to_float(F16 v) {
  const uint32_t sign = static_cast<uint32_t>(v.bits & 0x8000u) << 16;
  const uint32_t exponent = (v.bits >> 10) & 31u;
  const uint32_t fraction = v.bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (fraction << 13));
}

// Round to nearest even; overflow becomes infinity, NaN stays NaN (made quiet).
[[nodiscard]] constexpr F16 to_f16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u | ((a >> 13) & 0x1ffu))};
  if (a >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (a < 0x38800000u) {  // subnormal in binary16: the value in units of 2^-24, rounded
    const float magnitude = std::bit_cast<float>(a);
    const float rounded = magnitude * 0x1p24f + 0x1p23f;  // adding 2^23 rounds to nearest even
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) & 0xffffu))};
  }
  const uint32_t r = a + 0xfffu + ((a >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((r - 0x38000000u) >> 13))};
}

}  // namespace carat
