#include "quant/q4_1.h"

#include "quant/codes.h"
#include "quant/rows.h"
#include "quant/weighted_fit.h"

namespace carat::quant {

BlockQ4_1 encode_block_q4_1(const float* x, const float* weights) noexcept {
  int codes[kBlock];
  BlockQ4_1 block = {};
  if (weights != nullptr) {
    const LineCodes fit = fit_line(x, weights, 15);
    block.d = fit.d;
    block.m = fit.m;
    for (int j = 0; j < kBlock; ++j) codes[j] = fit.code[j];
  } else {
    const Range range = range_of(x, kBlock);
    const float d = (range.max - range.min) / 15.0f;
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    block.d = to_finite_f16(d);
    block.m = to_finite_f16(range.min);
    for (int j = 0; j < kBlock; ++j) {
      codes[j] = truncate_clamped((x[j] - range.min) * inverse + 0.5f, 0, 15);
    }
  }
  for (int j = 0; j < 16; ++j) {
    block.qs[j] = static_cast<uint8_t>(codes[j] | codes[j + 16] << 4);
  }
  return block;
}

void decode_block_q4_1(const BlockQ4_1& block, float* out) noexcept {
  const float d = to_float(block.d), m = to_float(block.m);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(block.qs[j] & 15) + m;
    out[j + 16] = d * static_cast<float>(block.qs[j] >> 4) + m;
  }
}

void encode_q4_1(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kBlock>(x, weights, row, n, encode_block_q4_1);
}

void decode_q4_1(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockQ4_1, kBlock>(row, out, n, decode_block_q4_1);
}

}  // namespace carat::quant
