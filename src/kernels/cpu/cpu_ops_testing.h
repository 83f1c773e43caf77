// Random weights and caches for the tests of CpuOps.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/testing/random_blocks.h"
#include "quant/coded_rows.h"
#include "quant/scheme.h"
#include "tensor/compare.h"

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

// Random codes: tiles for products, and the rows and scales of a file for look-ups.
struct CodedWeight {
  std::vector<int8_t> codes;
  Floats scales;                             // [count * rows, cols / columns]
  Floats values;                             // code * scale
  std::vector<std::byte> tile_bytes, image;  // image: of the file
  std::unique_ptr<RandomAccessFile> file;
  Weight weight;

  CodedWeight(Rng& rng, DType dtype, int64_t count, int64_t rows, int64_t cols,
              float input_scale = 0, float output_scale = 0) {
    const int range = 1 << quant::code_bits(dtype);
    weight = {.dtype = dtype, .layout = Layout::kTiles, .count = count, .rows = rows, .cols = cols};
    weight.input_scale = input_scale;
    weight.output_scale = output_scale;
    codes.resize(static_cast<size_t>(count * rows * cols));
    for (int8_t& c : codes) {
      c = static_cast<int8_t>(static_cast<int>(rng.below(static_cast<uint64_t>(range))) -
                              range / 2);
    }
    for (int64_t r = 0; r < count * rows; ++r) {
      scales.push_back(0.02f * static_cast<float>(1.5 + rng.uniform()) / static_cast<float>(range));
    }
    set_scales(scales, cols);
  }
  CodedWeight(CodedWeight&&) = default;
  operator const Weight&() const { return weight; }  // NOLINT: stands for it

  // One scale for every `columns` of a row, in the file's order.
  void set_scales(Floats by_columns, int64_t columns) {
    scales = std::move(by_columns);
    values.clear();
    for (size_t i = 0; i < codes.size(); ++i) {
      values.push_back(static_cast<float>(codes[i]) * scales[i / static_cast<size_t>(columns)]);
    }
    const int64_t rows = weight.count * weight.rows;
    image.resize(static_cast<size_t>(row_bytes(weight.dtype, weight.cols) * rows));
    quant::pack_codes(weight.dtype, codes.data(), rows * weight.cols, image.data());
    weight.scales = {nullptr, static_cast<int64_t>(image.size()), DType::kF32, columns};
    const auto* bytes = reinterpret_cast<const std::byte*>(scales.data());
    image.insert(image.end(), bytes, bytes + scales.size() * 4);
    file = memory_file("codes", image);
    weight.file = weight.scales.file = file.get();
    weight.data = nullptr;
    if (columns == weight.cols) pack();
  }

 private:
  void pack() {
    tile_bytes.resize(static_cast<size_t>(weight.count * weight.matrix_size()));
    std::byte* tile = tile_bytes.data();
    for (int64_t m = 0; m < weight.count; ++m) {
      for (int64_t r = 0; r < weight.rows; r += kTileRows, tile += weight.tile_size()) {
        const int64_t row = m * weight.rows + r;
        pack_channel_tile(*weight.tiles(), codes.data() + row * weight.cols, scales.data() + row,
                          std::min(kTileRows, weight.rows - r), weight.cols, tile);
      }
    }
    weight.data = tile_bytes.data();
  }
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

inline Floats values_of(const CpuOps& ops, const Value& x) {
  const auto v = ops.view(x);
  return {v.begin(), v.end()};
}

// f on every table with 1 to 4 threads: all results have the bits of the scalar table on one.
inline void expect_same_everywhere(const std::string& what,
                                   const std::function<Floats(CpuOps&)>& f) {
  Floats want;
  {
    ThreadPool pool(1);
    CpuOps ops(pool, generic_kernels());
    want = f(ops);
  }
  ASSERT_FALSE(want.empty());
  for (const KernelTable* table : supported_kernels()) {
    for (int threads = 1; threads <= 4; ++threads) {
      ThreadPool pool(threads);
      CpuOps ops(pool, *table);
      const Floats got = f(ops);
      ASSERT_EQ(first_bit_difference(got, want), -1)
          << what << ", " << table->isa << ", " << threads
          << " threads: " << to_string(compare(got, want));
    }
  }
}

}  // namespace carat::kernels::test
