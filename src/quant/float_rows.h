// Rows without blocks: F32, F16, BF16. Decoding is exact; encoding rounds to nearest even.
#pragma once

#include <cstddef>
#include <cstdint>

namespace carat::quant {

void encode_f32(const float* x, const float*, std::byte* row, int64_t n) noexcept;
void decode_f32(const std::byte* row, float* out, int64_t n) noexcept;
void encode_f16(const float* x, const float*, std::byte* row, int64_t n) noexcept;
void decode_f16(const std::byte* row, float* out, int64_t n) noexcept;
void encode_bf16(const float* x, const float*, std::byte* row, int64_t n) noexcept;
void decode_bf16(const std::byte* row, float* out, int64_t n) noexcept;

}  // namespace carat::quant
