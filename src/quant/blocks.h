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
struct BlockQ4_1 {
  F16 d;
  F16 m;
  uint8_t qs[16];
};
struct BlockQ5_0 {
  F16 d;
  uint8_t qh[4];
  uint8_t qs[16];
};
struct BlockQ5_1 {
  F16 d;
  F16 m;
  uint8_t qh[4];
  uint8_t qs[16];
};
struct BlockQ8_0 {
  F16 d;
  int8_t qs[32];
};
struct BlockIQ4_NL {
  F16 d;
  uint8_t qs[16];
};
struct BlockMXFP4 {
  uint8_t e;
  uint8_t qs[16];
};
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];
  F16 d;
  F16 dmin;
};
struct BlockQ3_K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  F16 d;
};
struct BlockQ4_K {
  F16 d;
  F16 dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};
struct BlockQ5_K {
  F16 d;
  F16 dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  F16 d;
};
struct BlockIQ4_XS {
  F16 d;
  uint8_t scales_h[2];
  uint8_t scales_l[4];
  uint8_t qs[128];
};

static_assert(sizeof(F16) == 2 && sizeof(BF16) == 2);
static_assert(sizeof(BlockQ4_0) == 18);
static_assert(sizeof(BlockQ4_1) == 20);
static_assert(sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ8_0) == 34);
static_assert(sizeof(BlockIQ4_NL) == 18);
static_assert(sizeof(BlockMXFP4) == 17);
static_assert(sizeof(BlockQ2_K) == 84);
static_assert(sizeof(BlockQ3_K) == 110);
static_assert(sizeof(BlockQ4_K) == 144);
static_assert(sizeof(BlockQ5_K) == 176);
static_assert(sizeof(BlockQ6_K) == 210);
static_assert(sizeof(BlockIQ4_XS) == 136);

}  // namespace carat::quant
