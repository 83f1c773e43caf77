#include "model/pack_codes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "base/error.h"
#include "base/half.h"
#include "kernels/tiles.h"
#include "quant/coded_rows.h"
#include "quant/q4_0.h"
#include "quant/scheme.h"

namespace carat::model {
namespace {

using kernels::Weight;

// 32 codes of 4 bits with their scale as a block of Q4_0. False if the scale is no binary16 number;
// that of a group of zeros does not matter.
bool to_block(const int8_t* codes, float scale, std::byte* out) {
  uint8_t unsigned_codes[quant::kBlock];
  bool zero = true;
  for (int i = 0; i < quant::kBlock; ++i) {
    unsigned_codes[i] = static_cast<uint8_t>(codes[i] + 8);
    zero = zero && codes[i] == 0;
  }
  F16 d = to_f16(scale);
  if (to_float(d) != scale) {
    if (!zero) return false;
    d = F16{0};
  }
  const quant::BlockQ4_0 block = quant::pack_block_q4_0(d, unsigned_codes);
  std::memcpy(out, &block, sizeof(block));
  return true;
}

bool pack_blocks(const Weight& w, const float* scales, int64_t n, CodeBuffers& buffers,
                 std::byte* tile) {
  const int64_t n_blocks = n * w.cols / quant::kBlock;
  constexpr auto kBytes = static_cast<int64_t>(sizeof(quant::BlockQ4_0));
  buffers.blocks.resize(static_cast<size_t>(n_blocks * kBytes));
  for (int64_t b = 0; b < n_blocks; ++b) {
    if (!to_block(buffers.codes.data() + b * quant::kBlock, scales[b],
                  buffers.blocks.data() + b * kBytes)) {
      return false;
    }
  }
  kernels::pack_tile(DType::kQ4_0, buffers.blocks.data(), n, w.cols, tile);
  return true;
}

}  // namespace

void read_scales(const Weight& w, int64_t first, int64_t n, CodeBuffers& buffers) {
  const kernels::CodeScales& s = w.scales;
  const int64_t per_row = w.cols / s.columns;
  buffers.raw.resize(static_cast<size_t>(row_bytes(s.dtype, n * per_row)));
  buffers.scales.resize(static_cast<size_t>(n * per_row));
  s.file->read(s.offset + row_bytes(s.dtype, first * per_row), buffers.raw);
  quant::decode_row(s.dtype, buffers.raw.data(), buffers.scales.data(), n * per_row);
  for (const float& scale : buffers.scales) {
    if (std::isfinite(scale)) continue;
    const int64_t at = first * per_row + (&scale - buffers.scales.data());
    throw Error({"a scale of weights is not finite", s.file->path(),
                 fmt::format("byte {}", s.offset + row_bytes(s.dtype, at)), "",
                 fmt::format("{}", scale), "the file is damaged"});
  }
}

bool pack_code_tile(const Weight& w, const std::byte* rows, int64_t scale_row, int64_t n,
                    CodeBuffers& buffers, std::byte* tile) {
  buffers.codes.resize(static_cast<size_t>(n * w.cols));
  quant::unpack_codes(w.dtype, rows, n * w.cols, buffers.codes.data());
  const float* scales = buffers.scales.data() + scale_row * (w.cols / w.scales.columns);
  if (*w.tiles() == kernels::TileFormat::kQ4_0) return pack_blocks(w, scales, n, buffers, tile);
  kernels::pack_channel_tile(*w.tiles(), buffers.codes.data(), scales, n, w.cols, tile);
  return true;
}

void expand_rows(const Weight& w, int64_t first, int64_t n, std::vector<std::byte>& rows,
                 CodeBuffers& buffers, float* out) {
  const int64_t row_size = w.row_size(), per_row = w.cols / w.scales.columns;
  rows.resize(std::max(rows.size(), static_cast<size_t>(n * row_size)));
  w.file->read(w.file_offset + first * row_size,
               std::span(rows).first(static_cast<size_t>(n * row_size)));
  read_scales(w, first, n, buffers);
  for (int64_t r = 0; r < n; ++r) {
    quant::decode_coded_row(w.dtype, rows.data() + r * row_size,
                            buffers.scales.data() + r * per_row, w.scales.columns, w.cols,
                            out + r * w.cols);
  }
}

}  // namespace carat::model
