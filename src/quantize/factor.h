// H = G + damping as (U + I) D (U + I)^T, U strictly upper triangular and D diagonal.
//
// With it the error of a row e = w - q of a matrix is a sum over columns,
//   e H e^T = sum_k D_k (e_k + sum_{j < k} e_j U_jk)^2,
// in which column k can be chosen to make its own term small whatever was chosen before it. That is
// the whole of error feedback (of GPTQ, which reaches the same numbers by way of H's inverse).
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "calibrate/gram.h"

namespace carat::quantize {

class Factor {
 public:
  // `damping` times the mean of G's diagonal is added to the diagonal; ten times as much where H
  // turns out not to be positive in float arithmetic, and so on. The same for every number of
  // threads. REQUIRES: damping > 0; sums are finite. Of a Gram that is all 0, D is 1 and U 0.
  Factor(const calibrate::Gram& gram, double damping, ThreadPool& pool);

  int64_t columns() const { return static_cast<int64_t>(d_.size()); }
  // Row j of U from column j + 1 on counts; the rest of the row is something else.
  const float* row(int64_t j) const { return h_.data() + j * columns(); }
  float d(int64_t k) const { return d_[static_cast<size_t>(k)]; }
  const float* d() const { return d_.data(); }
  // Added to each element of the diagonal.
  double damping() const { return added_; }

  // Of G and what is computed of it.
  static int64_t bytes(int64_t columns) { return columns * columns * 12; }

 private:
  bool decompose(const calibrate::Gram& gram, ThreadPool& pool);
  bool decompose_block(int64_t begin, int64_t end);
  void solve_above(int64_t begin, int64_t end, ThreadPool& pool);
  void update_above(int64_t begin, int64_t end, ThreadPool& pool);

  std::vector<float> h_;  // [columns, columns] H, then U; below the diagonal anything
  std::vector<float> d_;
  std::vector<double> diagonal_;
  std::vector<float> scaled_;  // U D of the block column at work
  double added_ = 0;
};

}  // namespace carat::quantize
