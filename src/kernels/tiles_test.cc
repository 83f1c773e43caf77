#include "kernels/tiles.h"

#include <gtest/gtest.h>

#include <bit>
#include <vector>

#include "kernels/testing/random_blocks.h"
#include "quant/scheme.h"

namespace carat::kernels {
namespace {

constexpr TileFormat kChannel[] = {TileFormat::kC2, TileFormat::kC4, TileFormat::kC8};

TEST(Tiles, EveryFormatHasOneTypeOrIsAChannelFormat) {
  std::vector<int> types(kTileFormats, 0);
  for (const DTypeInfo& t : all_dtypes()) {
    const auto f = tile_format(t.dtype);
    if (!f) continue;
    ++types[static_cast<size_t>(*f)];
    EXPECT_EQ(tile_info(*f).block_columns, t.block_elements) << t.name;
  }
  for (TileFormat f : kChannel) ++types[static_cast<size_t>(f)];
  for (int f = 0; f < kTileFormats; ++f) {
    EXPECT_EQ(types[static_cast<size_t>(f)], 1);
    EXPECT_EQ(static_cast<int>(kTileTable[f].format), f);
  }
  for (DType t : {DType::kF32, DType::kF16, DType::kBF16, DType::kI8}) {
    EXPECT_FALSE(tile_format(t).has_value());
  }
}

TEST(Tiles, TakeTheBytesOfTheirRows) {
  for (const DTypeInfo& t : all_dtypes()) {
    const auto f = tile_format(t.dtype);
    if (!f) continue;
    const int64_t rows = 16 * row_bytes(t.dtype, 512), tile = tile_bytes(*f, 512);
    EXPECT_GE(tile, rows) << t.name;
    EXPECT_LE(tile, rows * 21 / 20) << t.name;
  }
  EXPECT_EQ(tile_bytes(TileFormat::kC2, 64), 16 * 64 / 4 + 64);
  EXPECT_EQ(tile_bytes(TileFormat::kC8, 64), 16 * 64 + 64);
}

// Values of every row of a tile are those of the file's row; rows that lack are zeros.
TEST(Tiles, UnpackToWhatTheFileHolds) {
  Rng rng(1);
  for (const DTypeInfo& t : all_dtypes()) {
    const auto f = tile_format(t.dtype);
    if (!f || !quant::can_decode(t.dtype)) continue;
    for (int64_t blocks : {1, 3}) {
      const int64_t cols = blocks * t.block_elements;
      for (int64_t n : {16, 1, 7}) {
        const auto rows = test::random_blocks(rng, t.dtype, n * cols);
        std::vector<std::byte> tile(static_cast<size_t>(tile_bytes(*f, cols)), std::byte{0xa5});
        pack_tile(t.dtype, rows.data(), n, cols, tile.data());
        std::vector<float> want(static_cast<size_t>(cols)), got(want);
        for (int64_t r = 0; r < kTileRows; ++r) {
          std::fill(want.begin(), want.end(), 0.0f);
          if (r < n) {
            quant::decode_row(t.dtype, rows.data() + r * t.block_bytes * blocks, want.data(), cols);
          }
          unpack_tile_row(*f, tile.data(), r, cols, got.data());
          for (size_t c = 0; c < want.size(); ++c) {
            ASSERT_EQ(got[c], want[c]) << t.name << " row " << r << " column " << c;
          }
        }
      }
    }
  }
}

TEST(Tiles, UnpackChannelCodes) {
  Rng rng(2);
  const int64_t cols = 96;
  for (TileFormat f : kChannel) {
    const int range = f == TileFormat::kC2 ? 2 : f == TileFormat::kC4 ? 8 : 128;
    for (int64_t n : {16, 1, 5}) {
      std::vector<int8_t> codes(static_cast<size_t>(n * cols));
      for (int8_t& c : codes) {
        c = static_cast<int8_t>(static_cast<int>(rng.below(static_cast<uint64_t>(2 * range))) -
                                range);
      }
      std::vector<float> scales(static_cast<size_t>(n));
      for (float& s : scales) s = static_cast<float>(rng.normal());
      std::vector<std::byte> tile(static_cast<size_t>(tile_bytes(f, cols)), std::byte{0xa5});
      pack_channel_tile(f, codes.data(), scales.data(), n, cols, tile.data());
      std::vector<float> got(static_cast<size_t>(cols));
      for (int64_t r = 0; r < kTileRows; ++r) {
        unpack_tile_row(f, tile.data(), r, cols, got.data());
        for (int64_t c = 0; c < cols; ++c) {
          const float code = r < n ? codes[static_cast<size_t>(r * cols + c)] : 0;
          const float scale = r < n ? scales[static_cast<size_t>(r)] : 0.0f;
          ASSERT_EQ(got[static_cast<size_t>(c)], scale * code)
              << static_cast<int>(f) << " row " << r << " column " << c;
        }
      }
    }
  }
}

// Rows are where the plane's formula says, not only where packing and unpacking agree.
TEST(Tiles, PutBytesWhereTheHeaderSays) {
  Rng rng(3);
  const auto rows = test::random_blocks(rng, DType::kQ4_0, 16 * 32);
  std::vector<std::byte> tile(static_cast<size_t>(tile_bytes(TileFormat::kQ4_0, 32)));
  pack_tile(DType::kQ4_0, rows.data(), 16, 32, tile.data());
  for (int r = 0; r < 16; ++r) {
    const std::byte* row = rows.data() + 18 * r;
    EXPECT_EQ(tile[static_cast<size_t>(2 * r)], row[0]);
    EXPECT_EQ(tile[static_cast<size_t>(2 * r + 1)], row[1]);
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(tile[static_cast<size_t>(32 + 64 * j + 4 * r + i)], row[2 + 4 * j + i]);
      }
    }
  }
}

}  // namespace
}  // namespace carat::kernels
