#include "quant/q4_0.h"

#include "quant/codes.h"
#include "quant/rows.h"
#include "quant/weighted_fit.h"

namespace carat::quant {

BlockQ4_0 pack_block_q4_0(F16 d, const uint8_t* codes) noexcept {
  BlockQ4_0 block;
  block.d = d;
  for (int j = 0; j < 16; ++j) {
    block.qs[j] = static_cast<uint8_t>(codes[j] | (codes[j + 16] << 4));
  }
  return block;
}

BlockQ4_0 encode_block_q4_0(const float* x, const float* weights) noexcept {
  uint8_t codes[kBlock];
  if (weights != nullptr) {
    const ScaledCodes fit = fit_scaled(x, weights, -8, 7);
    for (int j = 0; j < kBlock; ++j) codes[j] = static_cast<uint8_t>(fit.code[j] + 8);
    return pack_block_q4_0(fit.d, codes);
  }
  const float d = signed_extremum(x, kBlock) / -8.0f;
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  for (int j = 0; j < kBlock; ++j) {
    codes[j] = static_cast<uint8_t>(truncate_clamped(x[j] * inverse + 8.5f, 0, 15));
  }
  return pack_block_q4_0(to_f16(d), codes);
}

void decode_block_q4_0(const BlockQ4_0& block, float* out) noexcept {
  const float d = to_float(block.d);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>((block.qs[j] & 15) - 8);
    out[j + 16] = d * static_cast<float>((block.qs[j] >> 4) - 8);
  }
}

void encode_q4_0(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kBlock>(x, weights, row, n, encode_block_q4_0);
}

void decode_q4_0(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockQ4_0, kBlock>(row, out, n, decode_block_q4_0);
}

}  // namespace carat::quant
