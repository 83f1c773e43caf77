// Q3_K: 256 elements, 16 sub-blocks of 16; value = d * (s - 32) * (n - 4), n in 0..7, s a 6-bit
// scale per sub-block, d binary16.
//
// Element e of the super-block: half h = e / 128, pass k = e % 128 / 32, lane l = e % 32. The two
// low bits of n are bits 2k, 2k + 1 of qs[32 h + l], its high bit is bit 4 h + k of hmask[l].
// Scale b (0..15): its low four bits are the low (b < 8) or high nibble of scales[b % 8], its high
// two are bits 2 (b / 4), 2 (b / 4) + 1 of scales[8 + b % 4].
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace carat::quant {

// Encoded by the rule of symmetric_fit.h.
[[nodiscard]] BlockQ3_K encode_block_q3_k(const float* x,
                                          const float* weights = nullptr) noexcept;  // x[256]
void decode_block_q3_k(const BlockQ3_K& block, float* out) noexcept;                 // out[256]

// Code 0..7 of element e (0..255).
[[nodiscard]] inline int code_of(const BlockQ3_K& block, int e) noexcept {
  const int h = e / 128, k = e % 128 / 32, l = e % 32;
  const int low = block.qs[32 * h + l] >> (2 * k) & 3;
  return low | (block.hmask[l] >> (4 * h + k) & 1) << 2;
}
// s - 32 of sub-block b (0..15): -32..31.
[[nodiscard]] inline int scale_of(const BlockQ3_K& block, int b) noexcept {
  const int low = block.scales[b % 8] >> (b < 8 ? 0 : 4) & 15;
  const int high = block.scales[8 + b % 4] >> (2 * (b / 4)) & 3;
  return (low | high << 4) - 32;
}

void encode_q3_k(const float* x, const float* weights, std::byte* row, int64_t n) noexcept;
void decode_q3_k(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
