// Q4_K: 256 elements, 8 sub-blocks of 32; value = d * sc * n - dmin * mn, n in 0..15, sc and mn 6
// bits per sub-block (k_scales.h), d and dmin binary16.
//
// Sub-blocks 2k and 2k + 1 share bytes 32 k .. 32 k + 31 of qs: element l of the first is the low
// nibble of byte l, element l of the second the high one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace carat::quant {

// Encoded by the rule of affine_fit.h.
[[nodiscard]] BlockQ4_K encode_block_q4_k(const float* x,
                                          const float* weights = nullptr) noexcept;  // x[256]
void decode_block_q4_k(const BlockQ4_K& block, float* out) noexcept;                 // out[256]

// Code 0..15 of element e (0..255).
[[nodiscard]] inline int code_of(const BlockQ4_K& block, int e) noexcept {
  const int b = e / 32, l = e % 32;
  return block.qs[32 * (b / 2) + l] >> (4 * (b % 2)) & 15;
}

void encode_q4_k(const float* x, const float* weights, std::byte* row, int64_t n) noexcept;
void decode_q4_k(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
