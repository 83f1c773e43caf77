// Codes for K blocks with minimums (Q2_K, Q4_K, Q5_K): 256 elements, value = d * scale * code -
// dmin * min with an unsigned scale and minimum per sub-block and an unsigned code.
#pragma once

#include <cstdint>

#include "base/half.h"

namespace carat::quant {

struct AffineGrid {
  int sub;           // elements of a sub-block: 16 or 32
  int code_levels;   // largest code
  int scale_levels;  // largest scale and minimum
};

// d and dmin are not negative.
struct AffineCodes {
  F16 d = {};
  F16 dmin = {};
  uint8_t scale[16] = {};  // of the 256 / sub sub-blocks
  uint8_t min[16] = {};
  uint8_t code[256] = {};
};

// Minimises the squared error: per sub-block a search over steps near range / code_levels with a
// least-squares refit of step and minimum, then both rounded to multiples of d and dmin, each tried
// one up and down, and d and dmin refitted together.
// Each element's squared error counts `weights[i]` times; null: once.
[[nodiscard]] AffineCodes fit_affine(const float* x, const float* weights,
                                     AffineGrid grid) noexcept;

}  // namespace carat::quant
