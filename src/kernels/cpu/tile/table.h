// The part of an ISA's table that holds the tile kernels. CARAT_TILE_TABLE, used once inside the
// ISA's namespace, declares its strong functions (tile/linear.h) and lists them by format.
#pragma once

#include "kernels/cpu/table.h"
#include "kernels/tiles.h"

#define CARAT_TILE_DECLARE(F) \
  void linear_##F(const TileRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept;
#define CARAT_STATIC_DECLARE(F) \
  void static_##F(const TileRows& w, const StaticRows& x, const LinearOutput& y) noexcept;

#define CARAT_TILE_TABLE                                                        \
  CARAT_TILE_DECLARE(kQ4_0)                                                     \
  CARAT_TILE_DECLARE(kIQ4_NL)                                                   \
  CARAT_TILE_DECLARE(kQ5_0)                                                     \
  CARAT_TILE_DECLARE(kQ8_0)                                                     \
  CARAT_TILE_DECLARE(kQ4_1)                                                     \
  CARAT_TILE_DECLARE(kQ5_1)                                                     \
  CARAT_TILE_DECLARE(kQ4_K)                                                     \
  CARAT_TILE_DECLARE(kQ5_K)                                                     \
  CARAT_TILE_DECLARE(kIQ4_XS)                                                   \
  CARAT_TILE_DECLARE(kQ6_K)                                                     \
  CARAT_TILE_DECLARE(kQ3_K)                                                     \
  CARAT_TILE_DECLARE(kQ2_K)                                                     \
  CARAT_TILE_DECLARE(kC2)                                                       \
  CARAT_TILE_DECLARE(kC4)                                                       \
  CARAT_TILE_DECLARE(kC8)                                                       \
  CARAT_STATIC_DECLARE(kC2)                                                     \
  CARAT_STATIC_DECLARE(kC4)                                                     \
  CARAT_STATIC_DECLARE(kC8)                                                     \
  constexpr TileLinear kLinearTiles[kTileFormats] = {                           \
      linear_kQ4_0, linear_kIQ4_NL, linear_kQ5_0, linear_kQ8_0,   linear_kQ4_1, \
      linear_kQ5_1, linear_kQ4_K,   linear_kQ5_K, linear_kIQ4_XS, linear_kQ6_K, \
      linear_kQ3_K, linear_kQ2_K,   linear_kC2,   linear_kC4,     linear_kC8};  \
  constexpr ChannelLinear kLinearChannel[3] = {static_kC2, static_kC4, static_kC8};
