// Rows of codes and the scales that lie apart from them, into tiles or floats: for pack.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/weight.h"

namespace carat::model {

// What a thread works in.
struct CodeBuffers {
  std::vector<std::byte> raw, blocks;
  std::vector<float> scales;
  std::vector<int8_t> codes;
};

// buffers.scales = those of rows [first, first + n), counted through the matrices of w. Throws
// Error if one is not finite.
void read_scales(const kernels::Weight& w, int64_t first, int64_t n, CodeBuffers& buffers);

// One tile of n <= 16 rows of codes, which lie at `rows`; buffers.scales begins `scale_row` rows
// before their scales. False if a scale does not fit the tile's. REQUIRES: w.tiles().
bool pack_code_tile(const kernels::Weight& w, const std::byte* rows, int64_t scale_row, int64_t n,
                    CodeBuffers& buffers, std::byte* tile);

// Rows [first, first + n) of w as floats, read from its files; `rows` is room for the codes.
void expand_rows(const kernels::Weight& w, int64_t first, int64_t n, std::vector<std::byte>& rows,
                 CodeBuffers& buffers, float* out);

}  // namespace carat::model
