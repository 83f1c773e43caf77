#include "quant/q6_k.h"

#include "quant/rows.h"
#include "quant/symmetric_fit.h"

namespace carat::quant {

BlockQ6_K encode_block_q6_k(const float* x, const float* weights) noexcept {
  const SymmetricCodes fit = fit_symmetric(x, weights, {.code_levels = 32, .scale_levels = 128});
  BlockQ6_K block = {};
  block.d = fit.d;
  for (int b = 0; b < 16; ++b) block.scales[b] = static_cast<int8_t>(fit.scale[b]);
  for (int h = 0; h < 2; ++h) {
    for (int l = 0; l < 32; ++l) {
      uint8_t n[4];
      for (int k = 0; k < 4; ++k) n[k] = static_cast<uint8_t>(fit.code[128 * h + 32 * k + l] + 32);
      block.ql[64 * h + l] = static_cast<uint8_t>((n[0] & 15) | n[2] << 4);
      block.ql[64 * h + 32 + l] = static_cast<uint8_t>((n[1] & 15) | n[3] << 4);
      block.qh[32 * h + l] =
          static_cast<uint8_t>(n[0] >> 4 | n[1] >> 4 << 2 | n[2] >> 4 << 4 | n[3] >> 4 << 6);
    }
  }
  return block;
}

void decode_block_q6_k(const BlockQ6_K& block, float* out) noexcept {
  const float d = to_float(block.d);
  for (int e = 0; e < kSuperBlock; ++e) {
    const float step = d * static_cast<float>(block.scales[e / 16]);
    out[e] = step * static_cast<float>(code_of(block, e) - 32);
  }
}

void encode_q6_k(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kSuperBlock>(x, weights, row, n, encode_block_q6_k);
}

void decode_q6_k(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockQ6_K, kSuperBlock>(row, out, n, decode_block_q6_k);
}

}  // namespace carat::quant
