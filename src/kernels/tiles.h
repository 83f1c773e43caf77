// The order in which kernels read quantized matrices: tiles of 16 rows whose codes lie interleaved,
// so that one load brings the same four columns of several rows. A tile takes the bytes of its rows
// in the file, a little more where a type packs its block scales in 6 bits. What a weight is worth
// does not change, only where its bits are.
//
// A matrix of R rows is ceil(R / 16) tiles one after another; rows that the last one lacks have
// scale 0 and code 0. A tile is a list of blocks, column 0 first, then for the channel formats one
// float scale per row. Experts follow one another, each with its own last tile.
//
// Planes hold the codes of 16 rows x 32 columns. Byte (r, i) of a 64-byte vector is byte 4 r + i:
//   kNibble  4 vectors; vector j, low nibble: column 4 j + i, high nibble: column 16 + 4 j + i
//   kPair    2 vectors; vector h, bits 2 j and 2 j + 1 (j < 4): column 16 h + 4 j + i
//   kBit     1 vector; bit j (j < 8): column 4 j + i
//   kByte    8 vectors; vector j: column 4 j + i
// A code is low plane + (high plane << bits of the low plane), unsigned, except that kByte is
// signed.
//
// Blocks, all parts without padding (f16, i8, u8: 16 of them, row 0 first; all values as in the
// type's file form, see quant/):
// clang-format off
//   Q4_0    32 columns   f16 d; kNibble                  w = d (code - 8)
//   IQ4_NL  32           f16 d; kNibble                  w = d table[code]
//   Q5_0    32           f16 d; kNibble, kBit            w = d (code - 16)
//   Q8_0    32           f16 d; kByte                    w = d code
//   Q4_1    32           f16 d; f16 m; kNibble           w = d code + m
//   Q5_1    32           f16 d; f16 m; kNibble, kBit     w = d code + m
//   Q4_K    256          f16 d; f16 dmin; 8 x (u8 sc; u8 mn; kNibble)
//                                                        w = d sc code - dmin mn
//   Q5_K    256          f16 d; f16 dmin; 8 x (u8 sc; u8 mn; kNibble, kBit)
//                                                        w = d sc code - dmin mn
//   IQ4_XS  256          f16 d; 8 x (i8 sc; kNibble)     w = d sc table[code], sc = -32..31
//   Q6_K    256          f16 d; 8 x (i8 sc of columns 0..15; i8 sc of 16..31; kNibble, kPair)
//                                                        w = d sc (code - 32)
//   Q3_K    256          f16 d; 8 x (i8 sc; i8 sc; kPair, kBit)
//                                                        w = d sc (code - 4), sc = -32..31
//   Q2_K    256          f16 d; f16 dmin; 8 x (u8 s; u8 s; kPair)
//                                                        w = d (s & 15) code - dmin (s >> 4)
//   channel formats (mobile): 32 columns, no block scales; at the tile's end 16 floats
//   C2                   kPair                           w = scale (code - 2)
//   C4                   kNibble                         w = scale (code - 8)
//   C8                   kByte                           w = scale code
// clang-format on
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "tensor/dtype.h"

namespace carat::kernels {

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kPlaneVector = 64;  // bytes
inline constexpr int64_t kTileColumns = 32;  // of one set of planes

enum class TileFormat : uint8_t {
  kQ4_0,
  kIQ4_NL,
  kQ5_0,
  kQ8_0,
  kQ4_1,
  kQ5_1,  // blocks of 32 columns
  kQ4_K,
  kQ5_K,
  kIQ4_XS,
  kQ6_K,
  kQ3_K,
  kQ2_K,  // blocks of 256 columns
  kC2,
  kC4,
  kC8,  // one scale per row
};
inline constexpr int kTileFormats = 15;

// How a block is built; planes lie in the order low, high.
enum class Plane : uint8_t { kNone, kNibble, kPair, kBit, kByte };

struct TileInfo {
  TileFormat format;
  Plane low, high;
  int block_columns;  // 32 or 256
  int head_bytes;     // f16 scales before the sets of planes, of all 16 rows
  int scale_bytes;    // u8 or i8 scales before each set of planes
  int tail_bytes;     // of a tile, after its blocks
  int offset;         // taken off a code; 0 for tables and formats with a minimum
};

constexpr int plane_bits(Plane p) {
  switch (p) {
    case Plane::kNibble:
      return 4;
    case Plane::kPair:
      return 2;
    case Plane::kBit:
      return 1;
    case Plane::kByte:
      return 8;
    case Plane::kNone:
      break;
  }
  return 0;
}

constexpr int plane_bytes(Plane p) {
  switch (p) {
    case Plane::kNibble:
      return 4 * kPlaneVector;
    case Plane::kPair:
      return 2 * kPlaneVector;
    case Plane::kBit:
      return kPlaneVector;
    case Plane::kByte:
      return 8 * kPlaneVector;
    case Plane::kNone:
      break;
  }
  return 0;
}

// In the order of the enumeration.
inline constexpr TileInfo kTileTable[kTileFormats] = {
    {TileFormat::kQ4_0, Plane::kNibble, Plane::kNone, 32, 32, 0, 0, 8},
    {TileFormat::kIQ4_NL, Plane::kNibble, Plane::kNone, 32, 32, 0, 0, 0},
    {TileFormat::kQ5_0, Plane::kNibble, Plane::kBit, 32, 32, 0, 0, 16},
    {TileFormat::kQ8_0, Plane::kByte, Plane::kNone, 32, 32, 0, 0, 0},
    {TileFormat::kQ4_1, Plane::kNibble, Plane::kNone, 32, 64, 0, 0, 0},
    {TileFormat::kQ5_1, Plane::kNibble, Plane::kBit, 32, 64, 0, 0, 0},
    {TileFormat::kQ4_K, Plane::kNibble, Plane::kNone, 256, 64, 32, 0, 0},
    {TileFormat::kQ5_K, Plane::kNibble, Plane::kBit, 256, 64, 32, 0, 0},
    {TileFormat::kIQ4_XS, Plane::kNibble, Plane::kNone, 256, 32, 16, 0, 0},
    {TileFormat::kQ6_K, Plane::kNibble, Plane::kPair, 256, 32, 32, 0, 32},
    {TileFormat::kQ3_K, Plane::kPair, Plane::kBit, 256, 32, 32, 0, 4},
    {TileFormat::kQ2_K, Plane::kPair, Plane::kNone, 256, 64, 32, 0, 0},
    {TileFormat::kC2, Plane::kPair, Plane::kNone, 32, 0, 0, 64, 2},
    {TileFormat::kC4, Plane::kNibble, Plane::kNone, 32, 0, 0, 64, 8},
    {TileFormat::kC8, Plane::kByte, Plane::kNone, 32, 0, 0, 64, 0},
};

constexpr const TileInfo& tile_info(TileFormat f) { return kTileTable[static_cast<int>(f)]; }

// Bytes of one block of a tile.
constexpr int64_t tile_block_bytes(TileFormat f) {
  const TileInfo& i = tile_info(f);
  const int sets = i.block_columns / kTileColumns;
  return i.head_bytes + sets * (i.scale_bytes + plane_bytes(i.low) + plane_bytes(i.high));
}
// Bytes of one tile. REQUIRES: cols is a multiple of block_columns.
constexpr int64_t tile_bytes(TileFormat f, int64_t cols) {
  return cols / tile_info(f).block_columns * tile_block_bytes(f) + tile_info(f).tail_bytes;
}

// The format of a file type's matrices; nothing for types that are read as they lie (F32, F16,
// BF16) or that have no kernels.
[[nodiscard]] std::optional<TileFormat> tile_format(DType dtype);

// Lays `n` <= 16 rows of the file's form (row r at rows + r * row_bytes) into one tile; missing
// rows become zeros. REQUIRES: tile_format(dtype), cols a multiple of the type's block.
void pack_tile(DType dtype, const std::byte* rows, int64_t n, int64_t cols,
               std::byte* tile) noexcept;

// One tile of a channel format: codes [n, cols] signed (C2: -2..1, C4: -8..7, C8: -128..127) and
// one scale per row. REQUIRES: cols a multiple of 32.
void pack_channel_tile(TileFormat format, const int8_t* codes, const float* scales, int64_t n,
                       int64_t cols, std::byte* tile) noexcept;

// Row r (0..15) of a tile as floats: the specification of the layout, and its test.
void unpack_tile_row(TileFormat format, const std::byte* tile, int64_t r, int64_t cols,
                     float* out) noexcept;

}  // namespace carat::kernels
