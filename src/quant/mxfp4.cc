#include "quant/mxfp4.h"

#include <algorithm>
#include <cmath>

#include "quant/codes.h"
#include "quant/rows.h"

namespace carat::quant {
namespace {

// Twice the levels: whole numbers, exact under any power of two.
constexpr float kTwiceLevels[8] = {0, 1, 2, 3, 4, 6, 8, 12};
// Half way between neighbours.
constexpr float kTwiceBorders[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5.0f, 7.0f, 10.0f};

constexpr int kBias = 127;
constexpr int kLargestExponent = 252;  // 6 * 2^(252 - 127) is the largest below the float's limit

// 2^(e - 128), the unit of the doubled levels. 2^(e - 127) would overflow where they do not.
float unit_of(int e) noexcept { return std::ldexp(1.0f, e - kBias - 1); }

int code_of(float doubled) noexcept {
  const float magnitude = std::fabs(doubled);
  int code = 0;
  while (code < 7 && magnitude > kTwiceBorders[code]) ++code;
  return doubled < 0 && code > 0 ? code + 8 : code;
}

float level_of(int code) noexcept {
  return code < 8 ? kTwiceLevels[code] : 0.0f - kTwiceLevels[code - 8];  // +0 for code 8, as ggml
}

// Squared error in units of the exponent `scale_of_error`, so that it neither under- nor overflows.
double error_with(const float* x, const float* weights, int e, double scale_of_error) noexcept {
  const double unit = std::ldexp(1.0, e - kBias - 1);
  double sum = 0;
  for (int j = 0; j < kBlock; ++j) {
    const auto v = static_cast<double>(x[j]);
    const double d =
        v - unit * static_cast<double>(level_of(code_of(static_cast<float>(v / unit))));
    const double w = weights != nullptr ? weights[j] : 1.0;
    sum += w * ((d / scale_of_error) * (d / scale_of_error));
  }
  return sum;
}

}  // namespace

BlockMXFP4 encode_block_mxfp4(const float* x, const float* weights) noexcept {
  BlockMXFP4 block = {};
  const float largest = std::fabs(signed_extremum(x, kBlock));
  if (largest == 0) return block;
  // With this one the largest element is between level 4 and twice that.
  const int middle = std::ilogb(largest) - 2 + kBias;
  double least = -1;
  for (int e = middle + 1; e >= middle - 1; --e) {
    const int possible = std::clamp(e, 0, kLargestExponent);
    const double error = error_with(x, weights, possible, static_cast<double>(largest));
    if (least >= 0 && error >= least) continue;
    least = error;
    block.e = static_cast<uint8_t>(possible);
  }
  const double unit = std::ldexp(1.0, block.e - kBias - 1);
  const auto code = [&](int j) { return code_of(static_cast<float>(double{x[j]} / unit)); };
  for (int j = 0; j < 16; ++j) block.qs[j] = static_cast<uint8_t>(code(j) | code(j + 16) << 4);
  return block;
}

void decode_block_mxfp4(const BlockMXFP4& block, float* out) noexcept {
  const float unit = unit_of(block.e);
  for (int j = 0; j < 16; ++j) {
    out[j] = unit * level_of(block.qs[j] & 15);
    out[j + 16] = unit * level_of(block.qs[j] >> 4);
  }
}

void encode_mxfp4(const float* x, const float* weights, std::byte* row, int64_t n) noexcept {
  encode_blocks<kBlock>(x, weights, row, n, encode_block_mxfp4);
}

void decode_mxfp4(const std::byte* row, float* out, int64_t n) noexcept {
  decode_blocks<BlockMXFP4, kBlock>(row, out, n, decode_block_mxfp4);
}

}  // namespace carat::quant
