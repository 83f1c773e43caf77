#include "quant/q8_0.h"

#include <cmath>

#include "quant/codes.h"
#include "quant/rows.h"
#include "quant/weighted_fit.h"

namespace carat::quant {

BlockQ8_0 encode_block_q8_0(const float* x, const float* weights) noexcept {
  BlockQ8_0 block;
  if (weights != nullptr) {
    const ScaledCodes fit = fit_scaled(x, weights, -127, 127);
    block.d = fit.d;
    for (int j = 0; j < kBlock; ++j) block.qs[j] = fit.code[j];
    return block;
  }
  const float d = std::fabs(signed_extremum(x, kBlock)) / 127.0f;
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  block.d = to_f16(d);
  for (int j = 0; j < kBlock; ++j) {
    block.qs[j] = static_cast<int8_t>(round_clamped(x[j] * inverse, -127, 127));
  }
  return block;
}

void decode_block_q8_0(const BlockQ8_0& block, float* out) noexcept {
  const float d = to_float(block.d);
  for (int j = 0; j < kBlock; ++j) out[j] = d * static_cast<float>(block.qs[j]);
}

void encode_q8_0(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kBlock>(x, weights, row, n, encode_block_q8_0);
}

void decode_q8_0(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockQ8_0, kBlock>(row, out, n, decode_block_q8_0);
}

}  // namespace carat::quant
