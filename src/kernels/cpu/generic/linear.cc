#include "kernels/scalar/linear.h"

#include <bit>

#include "kernels/cpu/generic/table.h"
#include "quant/float_rows.h"

namespace carat::kernels::generic {
namespace {

// Nearest integer, halves to even, for |x| < 2^22.
float nearest(float x) noexcept { return (x + scalar::kRoundShift) - scalar::kRoundShift; }

using RowDecode = void (*)(const std::byte*, float*, int64_t) noexcept;

void linear_float(RowDecode decode, const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                  float* scratch) noexcept {
  for (int64_t o = 0; o < w.rows; ++o) {
    decode(w.data + o * w.row_bytes, scratch, w.cols);
    for (int64_t t = 0; t < x.n; ++t) {
      y.data[t * y.stride + o] = scalar::dot(x.data + t * x.stride, scratch, w.cols);
    }
  }
}

}  // namespace

float quantize(const float* x, int64_t n, int8_t* codes) noexcept {
  // Magnitudes compare as integers, which orders NaN above infinity above the rest.
  uint32_t bits = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t b = std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu;
    bits = b > bits ? b : bits;
  }
  const float max = std::bit_cast<float>(bits);
  if (!(max >= scalar::kQuantizeZero) || bits >= 0x7f800000u) {
    for (int64_t i = 0; i < n; ++i) codes[i] = 0;
    return bits >= 0x7f800000u ? std::bit_cast<float>(0x7fc00000u) : 0.0f;
  }
  const float scale = max / 127.0f;
  const float inverse = 1.0f / scale;
  for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<int8_t>(nearest(x[i] * inverse));
  return scale;
}

void quantize_rows(const float* rows, const QuantizedRows& x) noexcept {
  for (int64_t b = 0; b < x.n * x.cols / kActivationBlock; ++b) {
    int8_t* codes = x.codes + b * kActivationBlock;
    x.scales[b] = quantize(rows + b * kActivationBlock, kActivationBlock, codes);
    int32_t half[2] = {0, 0};
    for (int j = 0; j < 32; ++j) half[j / 16] += codes[j];
    x.half_sums[2 * b] = static_cast<int16_t>(half[0]);
    x.half_sums[2 * b + 1] = static_cast<int16_t>(half[1]);
    x.sums[b] = 8 * (half[0] + half[1]);
    x.scaled_sums[b] = x.scales[b] * static_cast<float>(half[0] + half[1]);
  }
}

void linear_f32(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                float* scratch) noexcept {
  linear_float(quant::decode_f32, w, x, y, scratch);
}
void linear_f16(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                float* scratch) noexcept {
  linear_float(quant::decode_f16, w, x, y, scratch);
}
void linear_bf16(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                 float* scratch) noexcept {
  linear_float(quant::decode_bf16, w, x, y, scratch);
}

}  // namespace carat::kernels::generic
