// Q5_1: 32 elements share a binary16 scale d and minimum m; value = d * n + m, n in 0..31.
// The low four bits of element j (0..15) are the low nibble of byte j, those of element j + 16 its
// high nibble; the fifth bit of element j (0..31) is bit j % 8 of byte j / 8 of qh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace carat::quant {

// m = min x, d = (max x - m) / 31, n = min(31, trunc((x - m) / d + 0.5)) with the unrounded d and
// m; both are stored rounded to binary16.
[[nodiscard]] BlockQ5_1 encode_block_q5_1(const float* x,
                                          const float* weights = nullptr) noexcept;  // x[32]
void decode_block_q5_1(const BlockQ5_1& block, float* out) noexcept;                 // out[32]

// Code 0..31 of element j (0..31).
[[nodiscard]] inline int code_of(const BlockQ5_1& block, int j) noexcept {
  const int low = j < 16 ? block.qs[j] & 15 : block.qs[j - 16] >> 4;
  return low | (block.qh[j / 8] >> (j % 8) & 1) << 4;
}

void encode_q5_1(const float* x, const float* weights, std::byte* row, int64_t n) noexcept;
void decode_q5_1(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
