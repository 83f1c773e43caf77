// One parameter as a device sees it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/file.h"
#include "tensor/dtype.h"

namespace carat::kernels {

// A matrix [rows, cols] (a linear layer's [out, in]), or `count` of them one after another
// (experts), or a vector (rows = 1). Plain data; owns nothing. The bytes are immutable while any
// Ops may read them.
struct Weight {
  DType dtype = DType::kF32;
  int64_t count = 1;
  int64_t rows = 0;
  int64_t cols = 0;

  // First byte of the matrix in memory; nullptr for a table that is only looked up, whose rows are
  // read from `file` at `file_offset` when they are needed.
  const std::byte* data = nullptr;
  const RandomAccessFile* file = nullptr;
  int64_t file_offset = 0;

  // Which parameter of the model this is (index into model::Weights::all), and where in it this
  // slice begins: how the tape finds values of its own type and the place of the gradient.
  int32_t id = -1;
  int64_t row_begin = 0;

  bool empty() const { return rows == 0; }
  int64_t row_size() const { return row_bytes(dtype, cols); }
};

// Rows [begin, begin + n) of a single matrix.
inline Weight slice_rows(const Weight& w, int64_t begin, int64_t n) {
  Weight s = w;
  s.rows = n;
  s.row_begin += begin;
  if (s.data) s.data += begin * w.row_size();
  s.file_offset += begin * w.row_size();
  return s;
}

}  // namespace carat::kernels
