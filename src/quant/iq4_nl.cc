#include "quant/iq4_nl.h"

#include "quant/codes.h"
#include "quant/iq4_fit.h"
#include "quant/rows.h"

namespace carat::quant {

BlockIQ4_NL encode_block_iq4_nl(const float* x, const float* weights) noexcept {
  BlockIQ4_NL block;
  block.d = to_finite_f16(best_iq4_step(x, weights));
  pack_iq4_codes(x, to_float(block.d), block.qs);
  return block;
}

void decode_block_iq4_nl(const BlockIQ4_NL& block, float* out) noexcept {
  const float d = to_float(block.d);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(kIq4Levels[block.qs[j] & 15]);
    out[j + 16] = d * static_cast<float>(kIq4Levels[block.qs[j] >> 4]);
  }
}

void encode_iq4_nl(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kBlock>(x, weights, row, n, encode_block_iq4_nl);
}

void decode_iq4_nl(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockIQ4_NL, kBlock>(row, out, n, decode_block_iq4_nl);
}

}  // namespace carat::quant
