// One matrix rounded column after column: what a column's rounding does to the matrix's results is
// taken up by the columns behind it, as far as inputs are correlated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "quantize/factor.h"
#include "tensor/dtype.h"

namespace carat::quantize {

struct FeedbackCall {
  DType dtype = DType::kF32;       // one that has a grid (quant/grid.h)
  int64_t rows = 0, columns = 0;   // whole blocks
  const float* weights = nullptr;  // [rows, columns]
  std::byte* out = nullptr;        // rows * row_bytes(dtype, columns)
};

// Squared errors of what the matrix gives for the inputs, and what it gives, squared.
struct OutputError {
  double lost = 0, whole = 0;
  void add(const OutputError& other) {
    lost += other.lost;
    whole += other.whole;
  }
  double relative_rms() const;  // 0 where there is nothing to lose
};

// A block's scales are fitted, with D as weights, when its first column's turn comes: to what the
// columns before have made of its weights. Then each of its columns takes the nearest code; where
// no column has changed a weight since, the code that the fit chose. The same codes for every
// number of threads. Throws Error for weights that the type cannot hold.
OutputError encode_with_feedback(const FeedbackCall& call, const Factor& factor, ThreadPool& pool);

// The same with the scales and codes that fit best by the columns' weights alone, one for each.
OutputError encode_by_weight(const FeedbackCall& call, const Factor& factor,
                             std::span<const float> column_weights, ThreadPool& pool);

// The output error of any other encoding of the same matrix, by the same factor.
OutputError output_error(const FeedbackCall& encoded, const Factor& factor, ThreadPool& pool);

}  // namespace carat::quantize
