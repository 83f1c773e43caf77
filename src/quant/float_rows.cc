#include "quant/float_rows.h"

#include <cstring>

#include "base/half.h"

namespace carat::quant {

void encode_f32(const float* x, const float*, std::byte* row, int64_t n) noexcept {
  if (n > 0) std::memcpy(row, x, static_cast<size_t>(n) * sizeof(float));
}

void decode_f32(const std::byte* row, float* out, int64_t n) noexcept {
  if (n > 0) std::memcpy(out, row, static_cast<size_t>(n) * sizeof(float));
}

void encode_f16(const float* x, const float*, std::byte* row, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    const F16 v = to_f16(x[i]);
    std::memcpy(row + 2 * i, &v, 2);
  }
}

void decode_f16(const std::byte* row, float* out, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    F16 v;
    std::memcpy(&v, row + 2 * i, 2);
    out[i] = to_float(v);
  }
}

void encode_bf16(const float* x, const float*, std::byte* row, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    const BF16 v = to_bf16(x[i]);
    std::memcpy(row + 2 * i, &v, 2);
  }
}

void decode_bf16(const std::byte* row, float* out, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    BF16 v;
    std::memcpy(&v, row + 2 * i, 2);
    out[i] = to_float(v);
  }
}

}  // namespace carat::quant
