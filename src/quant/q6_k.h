// Q6_K: 256 elements, 16 sub-blocks of 16; value = d * scale[sub-block] * (n - 32), n in 0..63,
// scale a signed byte, d binary16.
//
// Element e of the super-block: half h = e / 128, pass k = e % 128 / 32, lane l = e % 32. Its low
// four bits are in ql[64 h + 32 (k % 2) + l] (low nibble for k < 2, high nibble otherwise), its two
// high bits are bits 2k, 2k + 1 of qh[32 h + l]. Sub-block e / 16 scales it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace carat::quant {

// Encoded by the rule of symmetric_fit.h.
[[nodiscard]] BlockQ6_K encode_block_q6_k(const float* x,
                                          const float* weights = nullptr) noexcept;  // x[256]
void decode_block_q6_k(const BlockQ6_K& block, float* out) noexcept;                 // out[256]

// Code 0..63 of element e (0..255).
[[nodiscard]] inline int code_of(const BlockQ6_K& block, int e) noexcept {
  const int h = e / 128, k = e % 128 / 32, l = e % 32;
  const int low = block.ql[64 * h + 32 * (k % 2) + l] >> (k < 2 ? 0 : 4) & 15;
  const int high = block.qh[32 * h + l] >> (2 * k) & 3;
  return low | high << 4;
}

void encode_q6_k(const float* x, const float* weights, std::byte* row, int64_t n) noexcept;
void decode_q6_k(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
