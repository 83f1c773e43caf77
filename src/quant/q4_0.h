// Q4_0: 32 elements share one binary16 scale d; value = d * (n - 8), n in 0..15.
// Element j (0..15) is the low nibble of byte j, element j + 16 its high nibble.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace carat::quant {

// d = signed extremum / -8, so the extremum has code 0; n = min(15, trunc(x / d + 8.5)) with the
// unrounded d; d is stored rounded to binary16. Formula: docs/formats.md, Q4_0.
[[nodiscard]] BlockQ4_0 encode_block_q4_0(const float* x,
                                          const float* weights = nullptr) noexcept;  // x[32]
void decode_block_q4_0(const BlockQ4_0& block, float* out) noexcept;                 // out[32]

// Code 0..15 of element j (0..31).
[[nodiscard]] inline int code_of(const BlockQ4_0& block, int j) noexcept {
  return j < 16 ? block.qs[j] & 15 : block.qs[j - 16] >> 4;
}
// The block with scale d and the 32 codes (0..15).
[[nodiscard]] BlockQ4_0 pack_block_q4_0(F16 d, const uint8_t* codes) noexcept;

void encode_q4_0(const float* x, const float* weights, std::byte* row, int64_t n) noexcept;
void decode_q4_0(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
