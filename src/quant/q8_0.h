// Q8_0: 32 elements share one binary16 scale d; value = d * q, q a signed byte.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace carat::quant {

// d = max|x| / 127, q = x / d rounded to nearest, halves away from zero, with the unrounded d.
[[nodiscard]] BlockQ8_0 encode_block_q8_0(const float* x,
                                          const float* weights = nullptr) noexcept;  // x[32]
void decode_block_q8_0(const BlockQ8_0& block, float* out) noexcept;                 // out[32]

void encode_q8_0(const float* x, const float* weights, std::byte* row, int64_t n) noexcept;
void decode_q8_0(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
