// IQ4_XS: 256 elements, 8 sub-blocks of 32; value = d * (s - 32) * level[n], n in 0..15, levels in
// iq4_fit.h, s a 6-bit scale per sub-block, d binary16.
//
// Sub-block b: its codes are bytes 16 b .. 16 b + 15 of qs, element j (0..15) the low nibble of
// byte j, element j + 16 its high nibble. The low four bits of s are the low (b even) or high
// nibble of scales_l[b / 2], its high bits are bits 2 b and 2 b + 1 of the little-endian scales_h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace carat::quant {

// Per sub-block best_iq4_step; d such that the largest step gets s - 32 = -32, the others rounded
// to multiples of it, each tried one up and down.
[[nodiscard]] BlockIQ4_XS encode_block_iq4_xs(const float* x,
                                              const float* weights = nullptr) noexcept;  // x[256]
void decode_block_iq4_xs(const BlockIQ4_XS& block, float* out) noexcept;                 // out[256]

// s - 32 of sub-block b (0..7): -32..31.
[[nodiscard]] inline int scale_of(const BlockIQ4_XS& block, int b) noexcept {
  const int low = block.scales_l[b / 2] >> (4 * (b % 2)) & 15;
  const int high = block.scales_h[b / 4] >> (2 * (b % 4)) & 3;
  return (low | high << 4) - 32;
}

void encode_iq4_xs(const float* x, const float* weights, std::byte* row, int64_t n) noexcept;
void decode_iq4_xs(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
