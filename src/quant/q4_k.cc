#include "quant/q4_k.h"

#include "quant/affine_fit.h"
#include "quant/k_scales.h"
#include "quant/rows.h"

namespace carat::quant {

BlockQ4_K encode_block_q4_k(const float* x, const float* weights) noexcept {
  const AffineCodes fit =
      fit_affine(x, weights, {.sub = 32, .code_levels = 15, .scale_levels = 63});
  BlockQ4_K block = {};
  block.d = fit.d;
  block.dmin = fit.dmin;
  for (int b = 0; b < 8; ++b) pack_k_scale(block.scales, b, {fit.scale[b], fit.min[b]});
  for (int pair = 0; pair < 4; ++pair) {
    for (int l = 0; l < 32; ++l) {
      const uint8_t* const code = fit.code + 64 * pair + l;
      block.qs[32 * pair + l] = static_cast<uint8_t>(code[0] | code[32] << 4);
    }
  }
  return block;
}

void decode_block_q4_k(const BlockQ4_K& block, float* out) noexcept {
  const float d = to_float(block.d), dmin = to_float(block.dmin);
  for (int b = 0; b < 8; ++b) {
    const ScaleMin pair = unpack_k_scale(block.scales, b);
    const float step = d * static_cast<float>(pair.scale);
    const float min = dmin * static_cast<float>(pair.min);
    for (int e = 32 * b; e < 32 * (b + 1); ++e) {
      out[e] = step * static_cast<float>(code_of(block, e)) - min;
    }
  }
}

void encode_q4_k(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kSuperBlock>(x, weights, row, n, encode_block_q4_k);
}

void decode_q4_k(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockQ4_K, kSuperBlock>(row, out, n, decode_block_q4_k);
}

}  // namespace carat::quant
