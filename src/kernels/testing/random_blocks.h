// Random matrices of every quantized type for the tests of the kernels.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "tensor/dtype.h"

namespace carat::kernels::test {

// Offsets of the 16-bit scales in a block; -1: none.
struct ScaleOffsets {
  DType dtype;
  int at[2];
};
inline constexpr ScaleOffsets kScaleOffsets[] = {
    {DType::kQ4_0, {0, -1}},   {DType::kIQ4_NL, {0, -1}}, {DType::kQ5_0, {0, -1}},
    {DType::kQ8_0, {0, -1}},   {DType::kQ4_1, {0, 2}},    {DType::kQ5_1, {0, 2}},
    {DType::kQ4_K, {0, 2}},    {DType::kQ5_K, {0, 2}},    {DType::kIQ4_XS, {0, -1}},
    {DType::kQ6_K, {208, -1}}, {DType::kQ3_K, {108, -1}}, {DType::kQ2_K, {80, 82}},
};

// Rows of a type's file form: every code and block scale random, 16-bit scales about `scale`, some
// of them negative, zero or subnormal. `elements` is a multiple of the type's block.
inline std::vector<std::byte> random_blocks(Rng& rng, DType dtype, int64_t elements,
                                            float scale = 0.01f) {
  std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(dtype, elements)));
  for (std::byte& b : bytes) b = static_cast<std::byte>(rng.next() >> 56);
  const int64_t block = info(dtype).block_bytes;
  for (const ScaleOffsets& s : kScaleOffsets) {
    if (s.dtype != dtype) continue;
    for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(block)) {
      for (int offset : s.at) {
        if (offset < 0) continue;
        const uint64_t kind = rng.next() >> 60;
        const float v = static_cast<float>(rng.normal()) * scale;
        const F16 d = to_f16(kind == 0 ? 0.0f : kind == 1 ? 1e-6f : v);
        std::memcpy(bytes.data() + at + static_cast<size_t>(offset), &d, 2);
      }
    }
  }
  return bytes;
}

}  // namespace carat::kernels::test
