#include "quant/iq4_xs.h"

#include "quant/codes.h"
#include "quant/iq4_fit.h"
#include "quant/rows.h"
#include "quant/search/table.h"

namespace carat::quant {
namespace {

constexpr int kSubs = kSuperBlock / kBlock;

const float* weights_of(const float* weights, int b) noexcept {
  return weights != nullptr ? weights + kBlock * b : nullptr;
}

}  // namespace

BlockIQ4_XS encode_block_iq4_xs(const float* x, const float* weights) noexcept {
  float steps[kSubs];
  for (int b = 0; b < kSubs; ++b) steps[b] = best_iq4_step(x + kBlock * b, weights_of(weights, b));
  BlockIQ4_XS block = {};
  block.d = to_finite_f16(signed_extremum(steps, kSubs) / -32.0f);
  const float d = to_float(block.d);
  int scales[kSubs] = {};
  if (d != 0.0f) {
    const search::Searches& search = search::searches();
    search::BlockColumns columns;
    columns.weighted = weights != nullptr;
    search.columns(x, kBlock, columns.x);
    if (columns.weighted) search.columns(weights, kBlock, columns.w);
    search.iq4_scales(columns, steps, d, scales);
  }
  for (int b = 0; b < kSubs; ++b) {
    const int s = scales[b] + 32;
    block.scales_l[b / 2] |= static_cast<uint8_t>((s & 15) << (4 * (b % 2)));
    block.scales_h[b / 4] |= static_cast<uint8_t>((s >> 4) << (2 * (b % 4)));
    pack_iq4_codes(x + kBlock * b, d * static_cast<float>(scales[b]), block.qs + 16 * b);
  }
  return block;
}

void decode_block_iq4_xs(const BlockIQ4_XS& block, float* out) noexcept {
  const float d = to_float(block.d);
  for (int b = 0; b < kSubs; ++b) {
    const float step = d * static_cast<float>(scale_of(block, b));
    for (int j = 0; j < 16; ++j) {
      const int byte = block.qs[16 * b + j];
      out[kBlock * b + j] = step * static_cast<float>(kIq4Levels[byte & 15]);
      out[kBlock * b + j + 16] = step * static_cast<float>(kIq4Levels[byte >> 4]);
    }
  }
}

void encode_iq4_xs(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kSuperBlock>(x, weights, row, n, encode_block_iq4_xs);
}

void decode_iq4_xs(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockIQ4_XS, kSuperBlock>(row, out, n, decode_block_iq4_xs);
}

}  // namespace carat::quant
