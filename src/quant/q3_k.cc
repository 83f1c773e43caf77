#include "quant/q3_k.h"

#include "quant/rows.h"
#include "quant/symmetric_fit.h"

namespace carat::quant {

BlockQ3_K encode_block_q3_k(const float* x, const float* weights) noexcept {
  const SymmetricCodes fit = fit_symmetric(x, weights, {.code_levels = 4, .scale_levels = 32});
  BlockQ3_K block = {};
  block.d = fit.d;
  for (int b = 0; b < 16; ++b) {
    const int s = fit.scale[b] + 32;
    block.scales[b % 8] |= static_cast<uint8_t>((s & 15) << (b < 8 ? 0 : 4));
    block.scales[8 + b % 4] |= static_cast<uint8_t>((s >> 4) << (2 * (b / 4)));
  }
  for (int e = 0; e < kSuperBlock; ++e) {
    const int h = e / 128, k = e % 128 / 32, l = e % 32;
    const int n = fit.code[e] + 4;
    block.qs[32 * h + l] |= static_cast<uint8_t>((n & 3) << (2 * k));
    block.hmask[l] |= static_cast<uint8_t>((n >> 2) << (4 * h + k));
  }
  return block;
}

void decode_block_q3_k(const BlockQ3_K& block, float* out) noexcept {
  const float d = to_float(block.d);
  for (int e = 0; e < kSuperBlock; ++e) {
    const float step = d * static_cast<float>(scale_of(block, e / 16));
    out[e] = step * static_cast<float>(code_of(block, e) - 4);
  }
}

void encode_q3_k(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kSuperBlock>(x, weights, row, n, encode_block_q3_k);
}

void decode_q3_k(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockQ3_K, kSuperBlock>(row, out, n, decode_block_q3_k);
}

}  // namespace carat::quant
