// Rows of small integer codes whose scales lie apart: the weights of the mobile format and of
// compressed-tensors. weight = code * scale, one scale per `scale_columns` columns of a row.
//
//   C8  one signed byte a code, -128..127
//   C4  two codes a byte, the lower nibble first, stored as code + 8, code -8..7
//   C2  four codes a byte, the lowest bits first, stored as code + 2, code -2..1
//
// The 32-bit words of compressed-tensors (code + 2^(bits-1), lowest bits first, little-endian) are
// the same bytes, as long as a row is whole words: rows of a multiple of 16 columns. Others are
// refused where they are read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace carat::quant {

[[nodiscard]] constexpr bool is_coded(DType dtype) noexcept {
  return dtype == DType::kC2 || dtype == DType::kC4 || dtype == DType::kC8;
}

// 2, 4 or 8. REQUIRES: is_coded(dtype), or one of these bits.
[[nodiscard]] int code_bits(DType dtype) noexcept;
[[nodiscard]] DType coded_dtype(int bits) noexcept;

// n codes from a row, and back. REQUIRES: whole bytes; codes in the type's range.
void unpack_codes(DType dtype, const std::byte* row, int64_t n, int8_t* codes) noexcept;
void pack_codes(DType dtype, const int8_t* codes, int64_t n, std::byte* row) noexcept;

// out[i] = float(code i) * scales[i / scale_columns], rounded to float once.
void decode_coded_row(DType dtype, const std::byte* row, const float* scales, int64_t scale_columns,
                      int64_t n, float* out) noexcept;

// Static rounding of activations: clamp(round half to even(x / scale), -128, 127). A NaN gives 0.
// REQUIRES: scale > 0.
[[nodiscard]] int static_code(float x, float scale) noexcept;

}  // namespace carat::quant
