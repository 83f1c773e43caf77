#include "quant/q2_k.h"

#include "quant/affine_fit.h"
#include "quant/rows.h"

namespace carat::quant {

BlockQ2_K encode_block_q2_k(const float* x, const float* weights) noexcept {
  const AffineCodes fit = fit_affine(x, weights, {.sub = 16, .code_levels = 3, .scale_levels = 15});
  BlockQ2_K block = {};
  block.d = fit.d;
  block.dmin = fit.dmin;
  for (int b = 0; b < 16; ++b) {
    block.scales[b] = static_cast<uint8_t>(fit.scale[b] | fit.min[b] << 4);
  }
  for (int e = 0; e < kSuperBlock; ++e) {
    const int shift = 2 * (e % 128 / 32);
    block.qs[32 * (e / 128) + e % 32] |= static_cast<uint8_t>(fit.code[e] << shift);
  }
  return block;
}

void decode_block_q2_k(const BlockQ2_K& block, float* out) noexcept {
  const float d = to_float(block.d), dmin = to_float(block.dmin);
  for (int e = 0; e < kSuperBlock; ++e) {
    const float step = d * static_cast<float>(block.scales[e / 16] & 15);
    const float min = dmin * static_cast<float>(block.scales[e / 16] >> 4);
    out[e] = step * static_cast<float>(code_of(block, e)) - min;
  }
}

void encode_q2_k(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kSuperBlock>(x, weights, row, n, encode_block_q2_k);
}

void decode_q2_k(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockQ2_K, kSuperBlock>(row, out, n, decode_block_q2_k);
}

}  // namespace carat::quant
