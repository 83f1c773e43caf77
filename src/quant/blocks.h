// Packed blocks as GGUF files hold them: little-endian, consecutive along a row. Plain bytes with
// names; what they mean is in the file of each scheme. Source: docs/formats.md.
#pragma once

#include <cstdint>

#include "base/half.h"
#include "tensor/dtype.h"

namespace carat::quant {

inline constexpr int kBlock = 32;        // elements of a plain block
inline constexpr int kSuperBlock = 256;  // elements of a K block

struct BlockQ4_0 {
  F16 d;
  uint8_t qs[16];
};
struct BlockQ8_0 {
  F16 d;
  int8_t qs[32];
};
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  F16 d;
};

static_assert(sizeof(F16) == 2 && sizeof(BF16) == 2);
static_assert(sizeof(BlockQ4_0) == 18);
static_assert(sizeof(BlockQ8_0) == 34);
static_assert(sizeof(BlockQ6_K) == 210);

}  // namespace carat::quant
