#include "quant/q5_1.h"

#include "quant/codes.h"
#include "quant/rows.h"
#include "quant/weighted_fit.h"

namespace carat::quant {

BlockQ5_1 encode_block_q5_1(const float* x, const float* weights) noexcept {
  int codes[kBlock];
  BlockQ5_1 block = {};
  if (weights != nullptr) {
    const LineCodes fit = fit_line(x, weights, 31);
    block.d = fit.d;
    block.m = fit.m;
    for (int j = 0; j < kBlock; ++j) codes[j] = fit.code[j];
  } else {
    const Range range = range_of(x, kBlock);
    const float d = (range.max - range.min) / 31.0f;
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    block.d = to_finite_f16(d);
    block.m = to_finite_f16(range.min);
    for (int j = 0; j < kBlock; ++j) {
      codes[j] = truncate_clamped((x[j] - range.min) * inverse + 0.5f, 0, 31);
    }
  }
  for (int j = 0; j < kBlock; ++j) {
    const int n = codes[j];
    block.qs[j % 16] |= static_cast<uint8_t>((n & 15) << (j < 16 ? 0 : 4));
    block.qh[j / 8] |= static_cast<uint8_t>((n >> 4) << (j % 8));
  }
  return block;
}

void decode_block_q5_1(const BlockQ5_1& block, float* out) noexcept {
  const float d = to_float(block.d), m = to_float(block.m);
  for (int j = 0; j < kBlock; ++j) out[j] = d * static_cast<float>(code_of(block, j)) + m;
}

void encode_q5_1(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kBlock>(x, weights, row, n, encode_block_q5_1);
}

void decode_q5_1(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockQ5_1, kBlock>(row, out, n, decode_block_q5_1);
}

}  // namespace carat::quant
