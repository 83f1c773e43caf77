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
  // Where x lies among the codes: the code itself at its value, linear between two neighbours, and
  // beyond the ends as between the last two. Halfway lies where the nearest code changes.
  // REQUIRES: the step is not 0.
  float position(int e, float x) const noexcept;
  // The other way round.
  float value_at(int e, float position) const noexcept;
};

// The numbers that all steps and all offsets of a block are multiples of: binary16 in the block,
// exact in float.
struct BlockScales {
  float d = 0;  // of the steps
  float m = 0;  // of the offsets; 0 for types that have none
};

// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, IQ4_XS and Q2_K to Q6_K.
[[nodiscard]] bool has_grid(DType dtype) noexcept;
// REQUIRES (of all here): has_grid(dtype).
void read_grid(DType dtype, const std::byte* block, Grid& grid) noexcept;
// Codes of all elements, in [lowest, highest].
void read_codes(DType dtype, const std::byte* block, int8_t* codes) noexcept;
// Sets them; scales stay.
void write_codes(DType dtype, const int8_t* codes, std::byte* block) noexcept;
[[nodiscard]] bool has_offsets(DType dtype) noexcept;
[[nodiscard]] BlockScales read_scales(DType dtype, const std::byte* block) noexcept;
// Rounds them to binary16, the largest finite one where they are beyond; codes and the scales of
// sub-blocks stay.
void write_scales(DType dtype, const BlockScales& scales, std::byte* block) noexcept;

}  // namespace carat::quant
