#include "quant/grid.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "quant/codes.h"
#include "quant/iq4_fit.h"
#include "quant/iq4_xs.h"
#include "quant/k_scales.h"
#include "quant/q2_k.h"
#include "quant/q3_k.h"
#include "quant/q4_0.h"
#include "quant/q4_k.h"
#include "quant/q5_0.h"
#include "quant/q5_1.h"
#include "quant/q5_k.h"
#include "quant/q6_k.h"

namespace carat::quant {
namespace {

// One per type: range, levels, the grid of a block, its codes, and codes into it. Codes are counted
// as Grid does.

void fill(Grid& g, int begin, int n, float step, float offset) noexcept {
  for (int e = begin; e < begin + n; ++e) {
    g.step[e] = step;
    g.offset[e] = offset;
  }
}

// Nibbles of elements j and j + 16 of 32 share a byte.
int nibble(const uint8_t* qs, int j) noexcept { return j < 16 ? qs[j] & 15 : qs[j - 16] >> 4; }
void set_nibbles(const int8_t* codes, int shift, uint8_t* qs) noexcept {
  for (int j = 0; j < 16; ++j) {
    const int low = codes[j] + shift, high = codes[j + 16] + shift;
    qs[j] = static_cast<uint8_t>((low & 15) | (high & 15) << 4);
  }
}
void set_fifth_bits(const int8_t* codes, int shift, uint8_t* qh) noexcept {
  std::memset(qh, 0, 4);
  for (int j = 0; j < kBlock; ++j) {
    qh[j / 8] |= static_cast<uint8_t>(((codes[j] + shift) >> 4 & 1) << (j % 8));
  }
}

struct TypeQ4_0 {
  using Block = BlockQ4_0;
  static constexpr int kElements = kBlock, kLowest = -8, kHighest = 7;
  static void grid(const Block& b, Grid& g) noexcept { fill(g, 0, kBlock, to_float(b.d), 0.0f); }
  static int code(const Block& b, int e) noexcept { return nibble(b.qs, e) - 8; }
  static void set(const int8_t* codes, Block& b) noexcept { set_nibbles(codes, 8, b.qs); }
};

struct TypeQ4_1 {
  using Block = BlockQ4_1;
  static constexpr int kElements = kBlock, kLowest = 0, kHighest = 15;
  static void grid(const Block& b, Grid& g) noexcept {
    fill(g, 0, kBlock, to_float(b.d), to_float(b.m));
  }
  static int code(const Block& b, int e) noexcept { return nibble(b.qs, e); }
  static void set(const int8_t* codes, Block& b) noexcept { set_nibbles(codes, 0, b.qs); }
};

struct TypeQ5_0 {
  using Block = BlockQ5_0;
  static constexpr int kElements = kBlock, kLowest = -16, kHighest = 15;
  static void grid(const Block& b, Grid& g) noexcept { fill(g, 0, kBlock, to_float(b.d), 0.0f); }
  static int code(const Block& b, int e) noexcept { return code_of(b, e) - 16; }
  static void set(const int8_t* codes, Block& b) noexcept {
    set_nibbles(codes, 16, b.qs);
    set_fifth_bits(codes, 16, b.qh);
  }
};

struct TypeQ5_1 {
  using Block = BlockQ5_1;
  static constexpr int kElements = kBlock, kLowest = 0, kHighest = 31;
  static void grid(const Block& b, Grid& g) noexcept {
    fill(g, 0, kBlock, to_float(b.d), to_float(b.m));
  }
  static int code(const Block& b, int e) noexcept { return code_of(b, e); }
  static void set(const int8_t* codes, Block& b) noexcept {
    set_nibbles(codes, 0, b.qs);
    set_fifth_bits(codes, 0, b.qh);
  }
};

struct TypeQ8_0 {
  using Block = BlockQ8_0;
  static constexpr int kElements = kBlock, kLowest = -127, kHighest = 127;
  static void grid(const Block& b, Grid& g) noexcept { fill(g, 0, kBlock, to_float(b.d), 0.0f); }
  static int code(const Block& b, int e) noexcept { return b.qs[e]; }
  static void set(const int8_t* codes, Block& b) noexcept { std::memcpy(b.qs, codes, kBlock); }
};

struct TypeIQ4_NL {
  using Block = BlockIQ4_NL;
  static constexpr int kElements = kBlock, kLowest = 0, kHighest = 15;
  static void grid(const Block& b, Grid& g) noexcept {
    g.levels = kIq4Levels;
    fill(g, 0, kBlock, to_float(b.d), 0.0f);
  }
  static int code(const Block& b, int e) noexcept { return nibble(b.qs, e); }
  static void set(const int8_t* codes, Block& b) noexcept { set_nibbles(codes, 0, b.qs); }
};

struct TypeIQ4_XS {
  using Block = BlockIQ4_XS;
  static constexpr int kElements = kSuperBlock, kLowest = 0, kHighest = 15;
  static void grid(const Block& b, Grid& g) noexcept {
    g.levels = kIq4Levels;
    const float d = to_float(b.d);
    for (int s = 0; s < 8; ++s) fill(g, 32 * s, 32, d * static_cast<float>(scale_of(b, s)), 0.0f);
  }
  static int code(const Block& b, int e) noexcept { return nibble(b.qs + 16 * (e / 32), e % 32); }
  static void set(const int8_t* codes, Block& b) noexcept {
    for (int s = 0; s < 8; ++s) set_nibbles(codes + 32 * s, 0, b.qs + 16 * s);
  }
};

struct TypeQ2_K {
  using Block = BlockQ2_K;
  static constexpr int kElements = kSuperBlock, kLowest = 0, kHighest = 3;
  static void grid(const Block& b, Grid& g) noexcept {
    const float d = to_float(b.d), dmin = to_float(b.dmin);
    for (int s = 0; s < 16; ++s) {
      fill(g, 16 * s, 16, d * static_cast<float>(b.scales[s] & 15),
           -(dmin * static_cast<float>(b.scales[s] >> 4)));
    }
  }
  static int code(const Block& b, int e) noexcept { return code_of(b, e); }
  static void set(const int8_t* codes, Block& b) noexcept {
    std::memset(b.qs, 0, sizeof(b.qs));
    for (int e = 0; e < kSuperBlock; ++e) {
      b.qs[32 * (e / 128) + e % 32] |= static_cast<uint8_t>(codes[e] << (2 * (e % 128 / 32)));
    }
  }
};

struct TypeQ3_K {
  using Block = BlockQ3_K;
  static constexpr int kElements = kSuperBlock, kLowest = -4, kHighest = 3;
  static void grid(const Block& b, Grid& g) noexcept {
    const float d = to_float(b.d);
    for (int s = 0; s < 16; ++s) fill(g, 16 * s, 16, d * static_cast<float>(scale_of(b, s)), 0.0f);
  }
  static int code(const Block& b, int e) noexcept { return code_of(b, e) - 4; }
  static void set(const int8_t* codes, Block& b) noexcept {
    std::memset(b.qs, 0, sizeof(b.qs));
    std::memset(b.hmask, 0, sizeof(b.hmask));
    for (int e = 0; e < kSuperBlock; ++e) {
      const int h = e / 128, k = e % 128 / 32, l = e % 32, n = codes[e] + 4;
      b.qs[32 * h + l] |= static_cast<uint8_t>((n & 3) << (2 * k));
      b.hmask[l] |= static_cast<uint8_t>((n >> 2) << (4 * h + k));
    }
  }
};

template <class B>
void grid_of_pairs(const B& b, Grid& g) noexcept {
  const float d = to_float(b.d), dmin = to_float(b.dmin);
  for (int s = 0; s < 8; ++s) {
    const ScaleMin pair = unpack_k_scale(b.scales, s);
    fill(g, 32 * s, 32, d * static_cast<float>(pair.scale), -(dmin * static_cast<float>(pair.min)));
  }
}
// Low four bits as Q4_K and Q5_K lay them.
void set_low_bits(const int8_t* codes, uint8_t* qs) noexcept {
  for (int i = 0; i < 128; ++i) {
    const int e = 64 * (i / 32) + i % 32;
    qs[i] = static_cast<uint8_t>((codes[e] & 15) | (codes[e + 32] & 15) << 4);
  }
}

struct TypeQ4_K {
  using Block = BlockQ4_K;
  static constexpr int kElements = kSuperBlock, kLowest = 0, kHighest = 15;
  static void grid(const Block& b, Grid& g) noexcept { grid_of_pairs(b, g); }
  static int code(const Block& b, int e) noexcept { return code_of(b, e); }
  static void set(const int8_t* codes, Block& b) noexcept { set_low_bits(codes, b.qs); }
};

struct TypeQ5_K {
  using Block = BlockQ5_K;
  static constexpr int kElements = kSuperBlock, kLowest = 0, kHighest = 31;
  static void grid(const Block& b, Grid& g) noexcept { grid_of_pairs(b, g); }
  static int code(const Block& b, int e) noexcept { return code_of(b, e); }
  static void set(const int8_t* codes, Block& b) noexcept {
    set_low_bits(codes, b.qs);
    std::memset(b.qh, 0, sizeof(b.qh));
    for (int e = 0; e < kSuperBlock; ++e) {
      b.qh[e % 32] |= static_cast<uint8_t>((codes[e] >> 4 & 1) << (e / 32));
    }
  }
};

struct TypeQ6_K {
  using Block = BlockQ6_K;
  static constexpr int kElements = kSuperBlock, kLowest = -32, kHighest = 31;
  static void grid(const Block& b, Grid& g) noexcept {
    const float d = to_float(b.d);
    for (int s = 0; s < 16; ++s) fill(g, 16 * s, 16, d * static_cast<float>(b.scales[s]), 0.0f);
  }
  static int code(const Block& b, int e) noexcept { return code_of(b, e) - 32; }
  static void set(const int8_t* codes, Block& b) noexcept {
    std::memset(b.ql, 0, sizeof(b.ql));
    std::memset(b.qh, 0, sizeof(b.qh));
    for (int e = 0; e < kSuperBlock; ++e) {
      const int h = e / 128, k = e % 128 / 32, l = e % 32, n = codes[e] + 32;
      b.ql[64 * h + 32 * (k % 2) + l] |= static_cast<uint8_t>((n & 15) << (k < 2 ? 0 : 4));
      b.qh[32 * h + l] |= static_cast<uint8_t>((n >> 4) << (2 * k));
    }
  }
};

// Calls f with the type's description; false if it has none.
template <class F>
bool with_type(DType dtype, F f) noexcept {
  switch (dtype) {
    case DType::kQ4_0:
      f(TypeQ4_0{});
      return true;
    case DType::kQ4_1:
      f(TypeQ4_1{});
      return true;
    case DType::kQ5_0:
      f(TypeQ5_0{});
      return true;
    case DType::kQ5_1:
      f(TypeQ5_1{});
      return true;
    case DType::kQ8_0:
      f(TypeQ8_0{});
      return true;
    case DType::kIQ4_NL:
      f(TypeIQ4_NL{});
      return true;
    case DType::kIQ4_XS:
      f(TypeIQ4_XS{});
      return true;
    case DType::kQ2_K:
      f(TypeQ2_K{});
      return true;
    case DType::kQ3_K:
      f(TypeQ3_K{});
      return true;
    case DType::kQ4_K:
      f(TypeQ4_K{});
      return true;
    case DType::kQ5_K:
      f(TypeQ5_K{});
      return true;
    case DType::kQ6_K:
      f(TypeQ6_K{});
      return true;
    default:
      return false;
  }
}

// Where a block's common scale of offsets lies.
template <class B>
auto* offset_scale(B& b) noexcept {
  if constexpr (requires { b.dmin; }) {
    return &b.dmin;
  } else if constexpr (requires { b.m; }) {
    return &b.m;
  } else {
    return static_cast<F16*>(nullptr);
  }
}

F16 finite_half(float x) noexcept {
  constexpr float kMost = 65504.0f;
  return to_f16(std::clamp(x, -kMost, kMost));
}

template <class T>
typename T::Block load(const std::byte* block) noexcept {
  typename T::Block b;
  std::memcpy(&b, block, sizeof(b));
  return b;
}

}  // namespace

int Grid::nearest(int e, float x) const noexcept {
  if (step[e] == 0.0f) return lowest <= 0 && highest >= 0 ? 0 : lowest;
  const float v = (x - offset[e]) / step[e];
  return levels != nullptr ? nearest_iq4_code(v) : round_clamped(v, lowest, highest);
}

float Grid::position(int e, float x) const noexcept {
  const float v = (x - offset[e]) / step[e];
  if (levels == nullptr) return v;
  int i = lowest;
  while (i + 2 < highest + 1 && v >= static_cast<float>(levels[i + 1])) ++i;
  const auto low = static_cast<float>(levels[i]), high = static_cast<float>(levels[i + 1]);
  return static_cast<float>(i) + (v - low) / (high - low);
}

float Grid::value_at(int e, float position) const noexcept {
  if (levels == nullptr) return step[e] * position + offset[e];
  const int i = std::clamp(static_cast<int>(std::floor(position)), lowest, highest - 1);
  const auto low = static_cast<float>(levels[i]), high = static_cast<float>(levels[i + 1]);
  return step[e] * (low + (position - static_cast<float>(i)) * (high - low)) + offset[e];
}

bool has_grid(DType dtype) noexcept {
  return with_type(dtype, [](auto) {});
}

void read_grid(DType dtype, const std::byte* block, Grid& grid) noexcept {
  const bool known = with_type(dtype, [&](auto type) {
    using T = decltype(type);
    grid.elements = T::kElements;
    grid.lowest = T::kLowest;
    grid.highest = T::kHighest;
    grid.levels = nullptr;
    T::grid(load<T>(block), grid);
  });
  CHECK(known);
}

void read_codes(DType dtype, const std::byte* block, int8_t* codes) noexcept {
  const bool known = with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const typename T::Block b = load<T>(block);
    for (int e = 0; e < T::kElements; ++e) codes[e] = static_cast<int8_t>(T::code(b, e));
  });
  CHECK(known);
}

void write_codes(DType dtype, const int8_t* codes, std::byte* block) noexcept {
  const bool known = with_type(dtype, [&](auto type) {
    using T = decltype(type);
    typename T::Block b = load<T>(block);
    T::set(codes, b);
    std::memcpy(block, &b, sizeof(b));
  });
  CHECK(known);
}

bool has_offsets(DType dtype) noexcept {
  bool found = false;
  with_type(dtype, [&](auto type) {
    typename decltype(type)::Block b{};
    found = offset_scale(b) != nullptr;
  });
  return found;
}

BlockScales read_scales(DType dtype, const std::byte* block) noexcept {
  BlockScales scales;
  const bool known = with_type(dtype, [&](auto type) {
    auto b = load<decltype(type)>(block);
    scales.d = to_float(b.d);
    if (const F16* const m = offset_scale(b)) scales.m = to_float(*m);
  });
  CHECK(known);
  return scales;
}

void write_scales(DType dtype, const BlockScales& scales, std::byte* block) noexcept {
  const bool known = with_type(dtype, [&](auto type) {
    auto b = load<decltype(type)>(block);
    b.d = finite_half(scales.d);
    if (F16* const m = offset_scale(b)) *m = finite_half(scales.m);
    std::memcpy(block, &b, sizeof(b));
  });
  CHECK(known);
}

}  // namespace carat::quant
