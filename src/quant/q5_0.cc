#include "quant/q5_0.h"

#include "quant/codes.h"
#include "quant/rows.h"
#include "quant/weighted_fit.h"

namespace carat::quant {

BlockQ5_0 encode_block_q5_0(const float* x, const float* weights) noexcept {
  int codes[kBlock];
  BlockQ5_0 block = {};
  if (weights != nullptr) {
    const ScaledCodes fit = fit_scaled(x, weights, -16, 15);
    block.d = fit.d;
    for (int j = 0; j < kBlock; ++j) codes[j] = fit.code[j] + 16;
  } else {
    const float d = signed_extremum(x, kBlock) / -16.0f;
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    block.d = to_finite_f16(d);
    for (int j = 0; j < kBlock; ++j) {
      codes[j] = truncate_clamped(x[j] * inverse + 16.5f, 0, 31);
    }
  }
  for (int j = 0; j < kBlock; ++j) {
    const int n = codes[j];
    block.qs[j % 16] |= static_cast<uint8_t>((n & 15) << (j < 16 ? 0 : 4));
    block.qh[j / 8] |= static_cast<uint8_t>((n >> 4) << (j % 8));
  }
  return block;
}

void decode_block_q5_0(const BlockQ5_0& block, float* out) noexcept {
  const float d = to_float(block.d);
  for (int j = 0; j < kBlock; ++j) out[j] = d * static_cast<float>(code_of(block, j) - 16);
}

void encode_q5_0(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kBlock>(x, weights, row, n, encode_block_q5_0);
}

void decode_q5_0(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockQ5_0, kBlock>(row, out, n, decode_block_q5_0);
}

}  // namespace carat::quant
