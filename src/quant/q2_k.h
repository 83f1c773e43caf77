// Q2_K: 256 elements, 16 sub-blocks of 16; value = d * sc * n - dmin * mn, n in 0..3, sc and mn
// 0..15 per sub-block, d and dmin binary16.
//
// Element e of the super-block: half h = e / 128, pass k = e % 128 / 32, lane l = e % 32; n is bits
// 2k, 2k + 1 of qs[32 h + l]. Byte e / 16 of scales holds sc in its low nibble, mn in its high one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace carat::quant {

// Encoded by the rule of affine_fit.h.
[[nodiscard]] BlockQ2_K encode_block_q2_k(const float* x,
                                          const float* weights = nullptr) noexcept;  // x[256]
void decode_block_q2_k(const BlockQ2_K& block, float* out) noexcept;                 // out[256]

// Code 0..3 of element e (0..255).
[[nodiscard]] inline int code_of(const BlockQ2_K& block, int e) noexcept {
  return block.qs[32 * (e / 128) + e % 32] >> (2 * (e % 128 / 32)) & 3;
}

void encode_q2_k(const float* x, const float* weights, std::byte* row, int64_t n) noexcept;
void decode_q2_k(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
