// Random weights and caches for the tests of CpuOps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "kernels/ops.h"
#include "kernels/testing/random_blocks.h"
#include "quant/scheme.h"

namespace carat::kernels::test {

using Floats = std::vector<float>;

inline Floats normal(Rng& rng, int64_t n, float scale = 1.0f) {
  Floats v(static_cast<size_t>(n));
  for (float& x : v) x = static_cast<float>(rng.normal()) * scale;
  return v;
}

// A weight that owns its bytes, and its values as the format rounds them.
struct OwnedWeight {
  std::vector<std::byte> bytes;
  Floats values;
  Weight weight;

  OwnedWeight(DType dtype, int64_t count, int64_t rows, int64_t cols, const Floats& from) {
    const int64_t n = count * rows * cols;
    bytes.resize(static_cast<size_t>(row_bytes(dtype, n)));
    values.resize(static_cast<size_t>(n));
    quant::encode_row(dtype, from.data(), bytes.data(), n);
    quant::decode_row(dtype, bytes.data(), values.data(), n);
    weight = {.dtype = dtype, .count = count, .rows = rows, .cols = cols, .data = bytes.data()};
  }
  OwnedWeight(Rng& rng, DType dtype, int64_t count, int64_t rows, int64_t cols)
      : OwnedWeight(dtype, count, rows, cols, normal(rng, count * rows * cols, 0.1f)) {}
  OwnedWeight(OwnedWeight&&) = default;
  operator const Weight&() const { return weight; }  // NOLINT: stands for it
};

// A random quantized weight twice: as rows and as tiles.
struct PackedWeight {
  std::vector<std::byte> row_bytes, tile_bytes;
  Weight rows, tiles;

  PackedWeight(Rng& rng, DType dtype, int64_t count, int64_t n_rows, int64_t cols)
      : row_bytes(random_blocks(rng, dtype, count * n_rows * cols)) {
    rows = {.dtype = dtype, .count = count, .rows = n_rows, .cols = cols, .data = row_bytes.data()};
    tiles = rows;
    tiles.layout = Layout::kTiles;
    tile_bytes.resize(static_cast<size_t>(count * tiles.matrix_size()));
    std::byte* tile = tile_bytes.data();
    for (int64_t m = 0; m < count; ++m) {
      for (int64_t r = 0; r < n_rows; r += kTileRows, tile += tiles.tile_size()) {
        pack_tile(dtype, row_bytes.data() + (m * n_rows + r) * rows.row_size(),
                  std::min(kTileRows, n_rows - r), cols, tile);
      }
    }
    tiles.data = tile_bytes.data();
  }
  PackedWeight(PackedWeight&&) = default;
};

inline std::vector<DType> tiled_types() {
  std::vector<DType> types;
  for (const DTypeInfo& t : all_dtypes()) {
    if (tile_format(t.dtype)) types.push_back(t.dtype);
  }
  return types;
}

// Pages of one layer of one sequence, filled with garbage.
struct OwnedCache {
  std::vector<std::vector<std::byte>> memory;
  std::vector<std::byte*> pages;
  KvLayer layer;

  OwnedCache(KvType type, int64_t n_kv_heads, int64_t head_dim, int64_t positions) {
    layer = {type, n_kv_heads, head_dim, {}};
    for (int64_t p = 0; p < positions; p += kKvPageTokens) {
      memory.emplace_back(static_cast<size_t>(layer.page_bytes()), std::byte{0x7f});
      pages.push_back(memory.back().data());
    }
    layer.pages = pages;
  }
};

inline std::vector<RowRef> consecutive_rows(int64_t begin, int64_t end, int32_t sequence = 0) {
  std::vector<RowRef> rows;
  for (int64_t p = begin; p < end; ++p) rows.push_back({sequence, static_cast<int32_t>(p)});
  return rows;
}

}  // namespace carat::kernels::test
