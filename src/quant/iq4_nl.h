// IQ4_NL: 32 elements share one binary16 scale d; value = d * level[n], n in 0..15, levels in
// iq4_fit.h. Element j (0..15) is the low nibble of byte j, element j + 16 its high nibble.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/blocks.h"

namespace carat::quant {

// d is best_iq4_step rounded to binary16; each element gets the code nearest with that.
[[nodiscard]] BlockIQ4_NL encode_block_iq4_nl(const float* x,
                                              const float* weights = nullptr) noexcept;  // x[32]
void decode_block_iq4_nl(const BlockIQ4_NL& block, float* out) noexcept;                 // out[32]

void encode_iq4_nl(const float* x, const float* weights, std::byte* row, int64_t n) noexcept;
void decode_iq4_nl(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
