#include "kernels/scalar/linear.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/cpu/generic/table.h"
#include "quant/blocks.h"
#include "quant/float_rows.h"
#include "quant/q6_k.h"

namespace carat::kernels::generic {
namespace {

// Nearest integer, halves to even, for |x| < 2^22.
float nearest(float x) noexcept { return (x + scalar::kRoundShift) - scalar::kRoundShift; }

// 32 elements of a matrix row: what is multiplied with 32 activation codes.
struct Block {
  int8_t code[kActivationBlock];
  int32_t scale[2] = {1, 1};  // integer scale of each half
  F16 d;
};

Block read_q4_0(const std::byte* row, int64_t b) noexcept {
  quant::BlockQ4_0 packed;
  std::memcpy(&packed, row + b * static_cast<int64_t>(sizeof packed), sizeof packed);
  Block block;
  block.d = packed.d;
  for (int j = 0; j < 16; ++j) block.code[j] = static_cast<int8_t>((packed.qs[j] & 15) - 8);
  for (int j = 0; j < 16; ++j) block.code[j + 16] = static_cast<int8_t>((packed.qs[j] >> 4) - 8);
  return block;
}

Block read_q8_0(const std::byte* row, int64_t b) noexcept {
  quant::BlockQ8_0 packed;
  std::memcpy(&packed, row + b * static_cast<int64_t>(sizeof packed), sizeof packed);
  Block block;
  block.d = packed.d;
  for (int j = 0; j < 32; ++j) block.code[j] = packed.qs[j];
  return block;
}

// Eight blocks of 32 to a super-block.
Block read_q6_k(const std::byte* row, int64_t b) noexcept {
  quant::BlockQ6_K packed;
  std::memcpy(&packed, row + b / 8 * static_cast<int64_t>(sizeof packed), sizeof packed);
  Block block;
  block.d = packed.d;
  const int first = static_cast<int>(b % 8) * 32;
  for (int j = 0; j < 32; ++j) {
    block.code[j] = static_cast<int8_t>(quant::code_of(packed, first + j) - 32);
  }
  for (int h = 0; h < 2; ++h) block.scale[h] = packed.scales[first / 16 + h];
  return block;
}

// The exact integer sum of a block.
int32_t dot_codes(const Block& block, const int8_t* codes) noexcept {
  int32_t half[2] = {0, 0};
  for (int j = 0; j < 16; ++j) half[0] += block.code[j] * codes[j];
  for (int j = 16; j < 32; ++j) half[1] += block.code[j] * codes[j];
  return block.scale[0] * half[0] + block.scale[1] * half[1];
}

using ReadBlock = Block (*)(const std::byte*, int64_t) noexcept;

template <ReadBlock read>
void linear_quantized(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  const int64_t n_blocks = w.cols / kActivationBlock;
  for (int64_t o = 0; o < w.rows; ++o) {
    for (int64_t t = 0; t < x.n; ++t) y.data[t * y.stride + o] = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
      const Block block = read(w.data + o * w.row_bytes, b);
      const float d = to_float(block.d);
      for (int64_t t = 0; t < x.n; ++t) {
        const int64_t at = t * n_blocks + b;
        const int32_t sum = dot_codes(block, x.codes + at * kActivationBlock);
        float& acc = y.data[t * y.stride + o];
        acc = std::fma(d * x.scales[at], static_cast<float>(sum), acc);
      }
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
    x.scaled_sums[b] = x.scales[b] * static_cast<float>(half[0] + half[1]);
  }
}

void linear_q4_0(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  linear_quantized<read_q4_0>(w, x, y);
}
void linear_q8_0(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  linear_quantized<read_q8_0>(w, x, y);
}
void linear_q6_k(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  linear_quantized<read_q6_k>(w, x, y);
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
