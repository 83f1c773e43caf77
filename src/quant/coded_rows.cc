#include "quant/coded_rows.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace carat::quant {

int code_bits(DType dtype) noexcept {
  switch (dtype) {
    case DType::kC2:
      return 2;
    case DType::kC4:
      return 4;
    case DType::kC8:
      return 8;
    default:
      CHECK(!"a type of codes");
  }
}

DType coded_dtype(int bits) noexcept {
  CHECK(bits == 2 || bits == 4 || bits == 8);
  return bits == 2 ? DType::kC2 : bits == 4 ? DType::kC4 : DType::kC8;
}

void unpack_codes(DType dtype, const std::byte* row, int64_t n, int8_t* codes) noexcept {
  const int bits = code_bits(dtype);
  const int per_byte = 8 / bits, mask = (1 << bits) - 1;
  const int offset = bits == 8 ? 0 : 1 << (bits - 1);
  for (int64_t i = 0; i < n; ++i) {
    const int byte = static_cast<int>(row[i / per_byte]);
    const int stored = byte >> (i % per_byte * bits) & mask;
    codes[i] = static_cast<int8_t>(stored - offset);
  }
}

void pack_codes(DType dtype, const int8_t* codes, int64_t n, std::byte* row) noexcept {
  const int bits = code_bits(dtype);
  const int per_byte = 8 / bits, mask = (1 << bits) - 1;
  const int offset = bits == 8 ? 0 : 1 << (bits - 1);
  for (int64_t i = 0; i < n; i += per_byte) {
    int byte = 0;
    for (int j = 0; j < per_byte; ++j) byte |= ((codes[i + j] + offset) & mask) << (j * bits);
    row[i / per_byte] = static_cast<std::byte>(byte);
  }
}

void decode_coded_row(DType dtype, const std::byte* row, const float* scales, int64_t scale_columns,
                      int64_t n, float* out) noexcept {
  const int bits = code_bits(dtype);
  const int per_byte = 8 / bits;
  // Pieces of a scale, in whole bytes: a group may be cut only there.
  constexpr int64_t kPiece = 256;
  int8_t codes[kPiece];
  for (int64_t begin = 0; begin < n;) {
    const int64_t group_end = (begin / scale_columns + 1) * scale_columns;
    const int64_t end = std::min({n, group_end, begin + kPiece});
    const float scale = scales[begin / scale_columns];
    unpack_codes(dtype, row + begin / per_byte, end - begin, codes);
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<float>(codes[i - begin]) * scale;
    begin = end;
  }
}

int static_code(float x, float scale) noexcept {
  const float steps = x / scale;
  if (!(steps > -128.0f)) return std::isnan(steps) ? 0 : -128;
  if (steps >= 127.0f) return 127;
  return static_cast<int>(std::nearbyint(steps));  // the default mode: halves to even
}

}  // namespace carat::quant
