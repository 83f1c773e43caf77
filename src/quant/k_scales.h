// The eight pairs of 6-bit scales and minimums that Q4_K and Q5_K pack into 12 bytes.
//
// Pair j < 4 is the low six bits of bytes j and j + 4. Of pair j >= 4, the low four bits of scale
// and minimum are the nibbles of byte j + 4 and the high two the top bits of bytes j - 4 and j.
#pragma once

#include <cstdint>

namespace carat::quant {

struct ScaleMin {
  int scale;  // 0..63
  int min;    // 0..63
};

[[nodiscard]] inline ScaleMin unpack_k_scale(const uint8_t* packed, int j) noexcept {
  if (j < 4) return {packed[j] & 63, packed[j + 4] & 63};
  return {(packed[j + 4] & 15) | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4};
}

// REQUIRES: packed is zero where pair j goes.
inline void pack_k_scale(uint8_t* packed, int j, ScaleMin pair) noexcept {
  if (j < 4) {
    packed[j] |= static_cast<uint8_t>(pair.scale);
    packed[j + 4] |= static_cast<uint8_t>(pair.min);
    return;
  }
  packed[j + 4] |= static_cast<uint8_t>((pair.scale & 15) | (pair.min & 15) << 4);
  packed[j - 4] |= static_cast<uint8_t>(pair.scale >> 4 << 6);
  packed[j] |= static_cast<uint8_t>(pair.min >> 4 << 6);
}

}  // namespace carat::quant
