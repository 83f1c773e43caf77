// An encoded block seen as the values that it could hold if its scales stayed: what a method needs
// that chooses codes by itself, one element after the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"
#include "tensor/dtype.h"

namespace carat::quant {

// Element e of the block is step[e] * level + offset[e], in float and bit for bit what decoding
// gives. level is the code itself, or levels[code].
struct Grid {
  int elements = 0;                // 32 or 256
  int lowest = 0, highest = 0;     // codes
  const int8_t* levels = nullptr;  // [highest + 1] ascending, lowest is 0; null: the code itself
  float step[kSuperBlock];         // may be 0 or negative
  float offset[kSuperBlock];

  float value(int e, int code) const noexcept {
    return step[e] * static_cast<float>(levels != nullptr ? levels[code] : code) + offset[e];
  }
  // The code whose value is nearest to x; any where the step is 0, one of them for NaN.
  int nearest(int e, float x) const noexcept;
};

// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, IQ4_XS and Q2_K to Q6_K.
[[nodiscard]] bool has_grid(DType dtype) noexcept;
// REQUIRES (of all three): has_grid(dtype).
void read_grid(DType dtype, const std::byte* block, Grid& grid) noexcept;
// Codes of all elements, in [lowest, highest].
void read_codes(DType dtype, const std::byte* block, int8_t* codes) noexcept;
// Sets them; scales stay.
void write_codes(DType dtype, const int8_t* codes, std::byte* block) noexcept;

}  // namespace carat::quant
