// MXFP4: 32 elements share one power of two; value = 2^(e - 127) * level[n], n in 0..15, e in
// 0..255. Levels: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and, for n >= 8, their negatives. Element j (0..15) is
// the low nibble of byte j, element j + 16 its high nibble.
//
// The OCP standard reads e = 255 as "not a number"; ggml, whose files these are, as 2^128. The
// encoder never writes it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace carat::quant {

// Largest magnitude that the encoder takes: level 6 at the largest exponent that it writes, of
// which float holds no more than this.
inline constexpr float kLargestMxfp4 = 0x1.8p127f;

// Of the exponent with which the largest element is 4 to 8 units of level 1, the one below and the
// one above, that which loses least; each element gets the nearest level, of two equally near the
// smaller.
[[nodiscard]] BlockMXFP4 encode_block_mxfp4(const float* x,
                                            const float* weights = nullptr) noexcept;  // x[32]
void decode_block_mxfp4(const BlockMXFP4& block, float* out) noexcept;                 // out[32]

void encode_mxfp4(const float* x, const float* weights, std::byte* row, int64_t n) noexcept;
void decode_mxfp4(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
