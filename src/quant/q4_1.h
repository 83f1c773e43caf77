// Q4_1: 32 elements share a binary16 scale d and minimum m; value = d * n + m, n in 0..15.
// Element j (0..15) is the low nibble of byte j, element j + 16 its high nibble.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace carat::quant {

// m = min x, d = (max x - m) / 15, n = min(15, trunc((x - m) / d + 0.5)) with the unrounded d and
// m; both are stored rounded to binary16.
[[nodiscard]] BlockQ4_1 encode_block_q4_1(const float* x,
                                          const float* weights = nullptr) noexcept;  // x[32]
void decode_block_q4_1(const BlockQ4_1& block, float* out) noexcept;                 // out[32]

void encode_q4_1(const float* x, const float* weights, std::byte* row, int64_t n) noexcept;
void decode_q4_1(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
