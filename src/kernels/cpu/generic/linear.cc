#include "kernels/scalar/linear.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/cpu/generic/table.h"
#include "quant/blocks.h"
#include "quant/float_rows.h"
#include "quant/q4_0.h"
#include "quant/q6_k.h"

namespace carat::kernels::generic {
namespace {

// Nearest integer, halves to even, for |x| < 2^22.
float nearest(float x) noexcept { return (x + scalar::kRoundShift) - scalar::kRoundShift; }

// One block of a matrix row against 32 activation codes: the exact integer sum, times the scales.
float accumulate(float acc, F16 d, float x_scale, int32_t sum) noexcept {
  return std::fma(to_float(d) * x_scale, static_cast<float>(sum), acc);
}

float dot_q4_0(const std::byte* row, const int8_t* codes, const float* scales,
               int64_t n_blocks) noexcept {
  float acc = 0.0f;
  for (int64_t b = 0; b < n_blocks; ++b) {
    quant::BlockQ4_0 block;
    std::memcpy(&block, row + b * sizeof(block), sizeof(block));
    int32_t sum = 0;
    for (int j = 0; j < 32; ++j) sum += (quant::code_of(block, j) - 8) * codes[32 * b + j];
    acc = accumulate(acc, block.d, scales[b], sum);
  }
  return acc;
}

float dot_q8_0(const std::byte* row, const int8_t* codes, const float* scales,
               int64_t n_blocks) noexcept {
  float acc = 0.0f;
  for (int64_t b = 0; b < n_blocks; ++b) {
    quant::BlockQ8_0 block;
    std::memcpy(&block, row + b * sizeof(block), sizeof(block));
    int32_t sum = 0;
    for (int j = 0; j < 32; ++j) sum += block.qs[j] * codes[32 * b + j];
    acc = accumulate(acc, block.d, scales[b], sum);
  }
  return acc;
}

float dot_q6_k(const std::byte* row, const int8_t* codes, const float* scales,
               int64_t n_blocks) noexcept {
  float acc = 0.0f;
  for (int64_t b = 0; b < n_blocks; ++b) {  // blocks of 32: 8 to a super-block
    quant::BlockQ6_K block;
    std::memcpy(&block, row + b / 8 * sizeof(block), sizeof(block));
    const int first = static_cast<int>(b % 8) * 32;
    int32_t half[2] = {0, 0};
    for (int j = 0; j < 32; ++j) {
      half[j / 16] += (quant::code_of(block, first + j) - 32) * codes[32 * b + j];
    }
    const int32_t sum = block.scales[first / 16] * half[0] + block.scales[first / 16 + 1] * half[1];
    acc = accumulate(acc, block.d, scales[b], sum);
  }
  return acc;
}

using RowDot = float (*)(const std::byte*, const int8_t*, const float*, int64_t) noexcept;

void linear_quantized(RowDot dot, const WeightRows& w, const QuantizedRows& x,
                      const LinearOutput& y) noexcept {
  const int64_t n_blocks = w.cols / kActivationBlock;
  for (int64_t o = 0; o < w.rows; ++o) {
    for (int64_t t = 0; t < x.n; ++t) {
      y.data[t * y.stride + o] =
          dot(w.data + o * w.row_bytes, x.codes + t * w.cols, x.scales + t * n_blocks, n_blocks);
    }
  }
}

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
  }
}

void linear_q4_0(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  linear_quantized(dot_q4_0, w, x, y);
}
void linear_q8_0(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  linear_quantized(dot_q8_0, w, x, y);
}
void linear_q6_k(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  linear_quantized(dot_q6_k, w, x, y);
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
