// One parameter as a device sees it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "base/file.h"
#include "kernels/tiles.h"
#include "tensor/dtype.h"

namespace carat::kernels {

// How the bytes at Weight::data lie.
enum class Layout : uint8_t {
  kRows,   // as in the file: rows one after another
  kTiles,  // tiles.h; of quantized types only. `file` still holds the rows
};

// Where the scales of codes (C2, C4, C8) lie in a checkpoint: floats of `dtype` (F32, BF16 or F16),
// [rows, cols / columns].
struct CodeScales {
  const RandomAccessFile* file = nullptr;
  int64_t offset = 0;
  DType dtype = DType::kF32;
  int64_t columns = 0;  // of a row that share one scale

  bool empty() const { return columns == 0; }
};

// A matrix [rows, cols] (a linear layer's [out, in]), or `count` of them one after another
// (experts), or a vector (rows = 1). Plain data; owns nothing. The bytes are immutable while any
// Ops may read them.
struct Weight {
  DType dtype = DType::kF32;
  Layout layout = Layout::kRows;
  int64_t count = 1;
  int64_t rows = 0;
  int64_t cols = 0;

  // First byte of the matrix in memory; nullptr for a table that is only looked up. Its rows, and
  // those looked up in a matrix of tiles, are read from `file` at `file_offset` when needed.
  const std::byte* data = nullptr;
  const RandomAccessFile* file = nullptr;
  int64_t file_offset = 0;

  // Of codes only. Products need codes in tiles; rows are only looked up.
  CodeScales scales = {};
  // Static rounding of a product's input and output (mobile format, ops.h); 0: none.
  float input_scale = 0, output_scale = 0;

  // Which parameter of the model this is (index into model::Weights::all), and where in it this
  // slice begins: how the tape finds values of its own type and the place of the gradient.
  int32_t id = -1;
  int64_t row_begin = 0;

  bool empty() const { return rows == 0; }
  int64_t row_size() const { return row_bytes(dtype, cols); }  // in the file
  // How its tiles lie; nothing for what is read as it lies. Codes with a scale per row have a format
  // of their own, 4-bit codes with a scale per 32 columns become Q4_0 tiles.
  std::optional<TileFormat> tiles() const {
    if (scales.empty()) return tile_format(dtype);
    if (scales.columns == cols) {
      if (dtype == DType::kC2) return TileFormat::kC2;
      if (dtype == DType::kC4) return TileFormat::kC4;
      if (dtype == DType::kC8) return TileFormat::kC8;
    }
    if (dtype == DType::kC4 && scales.columns == 32) return TileFormat::kQ4_0;
    return std::nullopt;
  }
  int64_t tile_size() const { return tile_bytes(*tiles(), cols); }
  // Bytes of one of the `count` matrices at `data`.
  int64_t matrix_size() const {
    return layout == Layout::kRows ? rows * row_size()
                                   : (rows + kTileRows - 1) / kTileRows * tile_size();
  }
};

// Rows [begin, begin + n) of a single matrix. REQUIRES: begin is a multiple of kTileRows if the
// matrix lies in tiles.
inline Weight slice_rows(const Weight& w, int64_t begin, int64_t n) {
  CHECK(w.count == 1 && begin >= 0 && n >= 0 && begin + n <= w.rows);
  CHECK(w.layout == Layout::kRows || begin % kTileRows == 0);
  Weight s = w;
  s.rows = n;
  s.row_begin += begin;
  if (s.data) {
    s.data += w.layout == Layout::kRows ? begin * w.row_size() : begin / kTileRows * w.tile_size();
  }
  s.file_offset += begin * w.row_size();
  if (!w.scales.empty()) {
    s.scales.offset += begin * row_bytes(w.scales.dtype, w.cols / w.scales.columns);
  }
  return s;
}

}  // namespace carat::kernels
