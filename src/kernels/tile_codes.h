// Reading a tile element by element, as tiles.h describes it: what the scalar kernels and the tests
// are written with.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "kernels/tiles.h"
#include "quant/iq4_fit.h"

namespace carat::kernels {

// The stored code of row r (0..15) and column c (0..31) of a plane.
inline int plane_code(Plane plane, const std::byte* bytes, int64_t r, int c) noexcept {
  const int i = c % 4;
  const auto at = [&](int vector) {
    return std::to_integer<int>(bytes[vector * kPlaneVector + 4 * r + i]);
  };
  switch (plane) {
    case Plane::kNibble:
      return at(c % 16 / 4) >> (c < 16 ? 0 : 4) & 15;
    case Plane::kPair:
      return at(c / 16) >> (2 * (c % 16 / 4)) & 3;
    case Plane::kBit:
      return at(0) >> (c / 4) & 1;
    case Plane::kByte:
      return static_cast<int8_t>(at(c / 4));
    case Plane::kNone:
      break;
  }
  return 0;
}

// Columns [32 s, 32 s + 32) of a tile.
template <TileFormat F>
struct TileSet {
  static constexpr const TileInfo& kInfo = kTileTable[static_cast<int>(F)];
  static constexpr bool kTable = F == TileFormat::kIQ4_NL || F == TileFormat::kIQ4_XS;

  const std::byte* head;    // of the block that the columns belong to
  const std::byte* scales;  // of the set
  const std::byte* planes;

  TileSet(const std::byte* tile, int64_t s) noexcept {
    constexpr int kSets = kInfo.block_columns / kTileColumns;
    constexpr int kSetBytes = kInfo.scale_bytes + plane_bytes(kInfo.low) + plane_bytes(kInfo.high);
    head = tile + s / kSets * tile_block_bytes(F);
    scales = head + kInfo.head_bytes + s % kSets * kSetBytes;
    planes = scales + kInfo.scale_bytes;
  }

  // The code of a weight: offset taken off, table looked up.
  int code(int64_t r, int c) const noexcept {
    int n = plane_code(kInfo.low, planes, r, c);
    if constexpr (kInfo.high != Plane::kNone) {
      n += plane_code(kInfo.high, planes + plane_bytes(kInfo.low), r, c) << plane_bits(kInfo.low);
    }
    return kTable ? quant::kIq4Levels[n & 15] : n - kInfo.offset;
  }
  // The k-th 16-bit scale of the block, as a float.
  float head_scale(int k, int64_t r) const noexcept {
    uint16_t bits;
    std::memcpy(&bits, head + k * 2 * kTileRows + 2 * r, 2);
    return to_float(F16{bits});
  }
  // The k-th byte scale of the set.
  int u8(int k, int64_t r) const noexcept {
    return std::to_integer<int>(scales[k * kTileRows + r]);
  }
  int i8(int k, int64_t r) const noexcept { return static_cast<int8_t>(u8(k, r)); }
};

// Scale of row r of a channel format's tile.
inline float channel_scale(TileFormat format, const std::byte* tile, int64_t cols,
                           int64_t r) noexcept {
  float scale;
  std::memcpy(&scale, tile + tile_bytes(format, cols) - 4 * (kTileRows - r), 4);
  return scale;
}

}  // namespace carat::kernels
