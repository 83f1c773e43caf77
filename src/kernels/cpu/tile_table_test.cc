// Products with tiles: the scalar kernels against sums in double, every other table against the
// scalar one bit for bit, on every format, odd shapes and codes at their extremes.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/testing/quantized.h"
#include "kernels/testing/random_blocks.h"
#include "kernels/tiles.h"
#include "tensor/compare.h"

namespace carat::kernels {
namespace {

using Floats = std::vector<float>;
using test::Quantized;

constexpr TileFormat kChannel[] = {TileFormat::kC2, TileFormat::kC4, TileFormat::kC8};

// A random matrix in tiles.
struct Tiles {
  TileFormat format;
  std::vector<std::byte> bytes;
  TileRows rows;

  // shift: bytes before the first tile, which needs no alignment.
  Tiles(Rng& rng, TileFormat f, int64_t n_rows, int64_t cols, int64_t shift = 0) : format(f) {
    const int64_t n = (n_rows + kTileRows - 1) / kTileRows, size = tile_bytes(f, cols);
    bytes.resize(static_cast<size_t>(shift + n * size));
    rows = {bytes.data() + shift, size, n_rows, cols};
    for (int64_t t = 0; t < n; ++t) {
      const int64_t in_tile = std::min(kTileRows, n_rows - t * kTileRows);
      std::byte* tile = bytes.data() + shift + t * size;
      if (tile_info(f).tail_bytes > 0) {
        pack_channel(rng, in_tile, cols, tile);
      } else {
        const auto blocks = test::random_blocks(rng, dtype(), in_tile * cols);
        pack_tile(dtype(), blocks.data(), in_tile, cols, tile);
      }
    }
  }
  DType dtype() const {
    for (const DTypeInfo& t : all_dtypes()) {
      if (tile_format(t.dtype) == format) return t.dtype;
    }
    return DType::kF32;
  }
  std::string name() const {
    return tile_info(format).tail_bytes > 0 ? "C" + std::to_string(2 * tile_info(format).offset)
                                            : name_of(dtype());
  }
  int64_t tiles() const { return (rows.rows + kTileRows - 1) / kTileRows; }
  // Every byte of codes and every byte scale the same; 16-bit and channel scales stay.
  void fill(std::byte code, std::byte scale) {
    const TileInfo& i = tile_info(format);
    auto* base = const_cast<std::byte*>(rows.data);
    for (int64_t t = 0; t < tiles(); ++t) {
      for (int64_t b = 0; b < rows.cols / i.block_columns; ++b) {
        std::byte* block = base + t * rows.tile_bytes + b * tile_block_bytes(format);
        std::fill(block + i.head_bytes, block + tile_block_bytes(format), code);
        const int64_t set_bytes = i.scale_bytes + plane_bytes(i.low) + plane_bytes(i.high);
        for (int s = 0; s < i.block_columns / kTileColumns; ++s) {
          std::byte* set = block + i.head_bytes + s * set_bytes;
          std::fill(set, set + i.scale_bytes, scale);
        }
      }
    }
  }
  Floats row(int64_t o) const {
    Floats out(static_cast<size_t>(rows.cols));
    unpack_tile_row(format, rows.data + o / kTileRows * rows.tile_bytes, o % kTileRows, rows.cols,
                    out.data());
    return out;
  }

 private:
  void pack_channel(Rng& rng, int64_t n, int64_t cols, std::byte* tile) const {
    const int range = format == TileFormat::kC2 ? 2 : format == TileFormat::kC4 ? 8 : 128;
    std::vector<int8_t> codes(static_cast<size_t>(n * cols));
    for (int8_t& c : codes) {
      c = static_cast<int8_t>(static_cast<int>(rng.below(static_cast<uint64_t>(2 * range))) -
                              range);
    }
    Floats scales(static_cast<size_t>(n));
    for (float& s : scales) s = static_cast<float>(rng.normal()) * 0.01f;
    pack_channel_tile(format, codes.data(), scales.data(), n, cols, tile);
  }
};

Floats activations(Rng& rng, int64_t n, bool outliers) {
  Floats v(static_cast<size_t>(n));
  for (float& x : v) {
    x = static_cast<float>(rng.normal()) * (outliers && rng.below(50) == 0 ? 1e4f : 1.0f);
  }
  return v;
}

class EveryTileTable : public testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& table = *GetParam();
  const KernelTable& oracle = generic_kernels();
};

INSTANTIATE_TEST_SUITE_P(Isa, EveryTileTable,
                         testing::ValuesIn(supported_kernels().begin(), supported_kernels().end()),
                         [](const auto& test) { return std::string(test.param->isa); });

TEST_P(EveryTileTable, MatchesTheOracle) {
  Rng rng(7);
  for (int f = 0; f < kTileFormats; ++f) {
    const auto format = static_cast<TileFormat>(f);
    const int64_t block = tile_info(format).block_columns;
    for (int round = 0; round < 36; ++round) {
      const int64_t n_rows = 1 + static_cast<int64_t>(rng.below(round % 4 == 0 ? 200 : 50));
      const int64_t n =
          round % 3 == 0 ? 1 : 1 + static_cast<int64_t>(rng.below(round % 6 == 1 ? 40 : 14));
      const int64_t limit = round % 8 == 0 ? 3000 : 600;
      const int64_t cols = block * (1 + static_cast<int64_t>(rng.below(limit / block + 1)));
      Tiles w(rng, format, n_rows, cols, static_cast<int64_t>(rng.below(3)));
      Quantized x(n, cols);
      oracle.quantize_rows(activations(rng, n * cols, round % 2 == 0).data(), x.rows);
      if (round < 16) {
        constexpr int kCodes[] = {0xff, 0x80, 0x7f, 0x00}, kScales[] = {0x80, 0x7f};
        w.fill(static_cast<std::byte>(kCodes[round / 2 % 4]),
               static_cast<std::byte>(kScales[round / 8]));
        x.fill(round % 2 == 0 ? 127 : -127, 0.01f);
      }
      const int64_t stride = n_rows + 3;
      Floats want(static_cast<size_t>(n * stride), -5.0f), got = want;
      oracle.linear_tiles[f](w.rows, x.rows, {want.data(), stride});
      table.linear_tiles[f](w.rows, x.rows, {got.data(), stride});
      ASSERT_EQ(first_bit_difference(got, want), -1)
          << w.name() << " " << n_rows << "x" << cols << " tokens " << n << ": "
          << to_string(compare(got, want));
    }
  }
}

TEST_P(EveryTileTable, IsTheProduct) {
  Rng rng(8);
  for (int f = 0; f < kTileFormats; ++f) {
    const auto format = static_cast<TileFormat>(f);
    const int64_t n_rows = 19, cols = 768, n = 5;
    const Tiles w(rng, format, n_rows, cols);
    Quantized x(n, cols);
    table.quantize_rows(activations(rng, n * cols, false).data(), x.rows);
    Floats want(static_cast<size_t>(n * n_rows)), got = want;
    for (int64_t o = 0; o < n_rows; ++o) {
      const Floats row = w.row(o);
      for (int64_t t = 0; t < n; ++t) {
        double sum = 0;
        for (int64_t i = 0; i < cols; ++i) {
          const size_t at = static_cast<size_t>(t * cols + i);
          sum += static_cast<double>(x.scales[at / 32]) * x.codes[at] * row[static_cast<size_t>(i)];
        }
        want[static_cast<size_t>(t * n_rows + o)] = static_cast<float>(sum);
      }
    }
    table.linear_tiles[f](w.rows, x.rows, {got.data(), n_rows});
    // One or two roundings per block of 32: relative 2^-24 each, on sums of random signs.
    EXPECT_LT(compare(got, want).nmse, 1e-12) << w.name();
  }
}

// A value that is not finite reaches the rows of its own token only.
TEST_P(EveryTileTable, KeepsWhatIsNotFiniteInItsRow) {
  Rng rng(9);
  for (int f = 0; f < kTileFormats; ++f) {
    const Tiles w(rng, static_cast<TileFormat>(f), 21, 512);
    Floats values = activations(rng, 3 * 512, false);
    values[512 + 100] = INFINITY;
    Quantized x(3, 512);
    table.quantize_rows(values.data(), x.rows);
    Floats y(3 * 21);
    table.linear_tiles[f](w.rows, x.rows, {y.data(), 21});
    for (size_t i = 0; i < y.size(); ++i) {
      EXPECT_EQ(std::isnan(y[i]), i / 21 == 1) << w.name() << " " << i;
    }
  }
}

TEST_P(EveryTileTable, StaticChannelsMatchTheOracleAndTheProduct) {
  Rng rng(10);
  for (int f = 0; f < 3; ++f) {
    for (int round = 0; round < 20; ++round) {
      const int64_t n_rows = 1 + static_cast<int64_t>(rng.below(70));
      const int64_t n =
          round % 3 == 0 ? 1 : 1 + static_cast<int64_t>(rng.below(round % 6 == 1 ? 80 : 14));
      const int64_t cols = round == 0 ? 1 << 16 : 32 * (1 + static_cast<int64_t>(rng.below(60)));
      Tiles w(rng, kChannel[f], round == 0 ? 3 : n_rows, cols);
      test::StaticCodes x(n, cols, 0.02f);
      std::vector<int8_t>& codes = x.codes;
      for (int8_t& c : codes) c = static_cast<int8_t>(rng.below(256));
      if (round < 4) {
        w.fill(round % 2 == 0 ? std::byte{0x80} : std::byte{0}, {});
        std::fill(codes.begin(), codes.end(), static_cast<int8_t>(round < 2 ? -128 : 127));
      }
      x.add_up();
      // Rows have scales of their own only where one is not a number.
      x.scales.back() = round % 5 == 4 ? std::numeric_limits<float>::quiet_NaN() : 0.02f;
      const int64_t stride = w.rows.rows + 1;
      Floats want(static_cast<size_t>(n * stride), -5.0f), got = want;
      oracle.linear_channel[f](w.rows, x.rows, {want.data(), stride});
      table.linear_channel[f](w.rows, x.rows, {got.data(), stride});
      ASSERT_EQ(first_bit_difference(got, want), -1) << w.name() << " " << n_rows << "x" << cols;
      for (int64_t o = 0; o < w.rows.rows; ++o) {
        EXPECT_EQ(std::isnan(got[static_cast<size_t>((n - 1) * stride + o)]), round % 5 == 4);
      }
      for (int64_t o = 0; o < (x.scales[0] == 0.02f ? w.rows.rows : 0); o += 5) {
        const Floats row = w.row(o);
        double sum = 0, size = 0;
        for (size_t i = 0; i < row.size(); ++i) {
          sum += 0.02 * codes[i] * row[i];
          size += std::fabs(0.02 * codes[i] * row[i]);
        }
        EXPECT_NEAR(got[static_cast<size_t>(o)], sum, size * 1e-6 + 1e-12) << w.name();
      }
    }
  }
}

}  // namespace
}  // namespace carat::kernels
