#include "quantize/factor.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "kernels/cpu/sgemm.h"

namespace carat::quantize {
namespace {

constexpr int64_t kBlock = 64;   // columns that are decomposed at a time
constexpr int64_t kPanel = 512;  // columns of an update

}  // namespace

Factor::Factor(const calibrate::Gram& gram, double damping, ThreadPool& pool)
    : h_(gram.values.size()),
      d_(static_cast<size_t>(gram.columns)),
      diagonal_(static_cast<size_t>(gram.columns)) {
  CHECK(damping > 0);
  const int64_t n = gram.columns;
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double d = gram.values[static_cast<size_t>(i * (n + 1))];
    CHECK(std::isfinite(d) && d >= 0);
    diagonal_[static_cast<size_t>(i)] = d;
    mean += d / static_cast<double>(n);
  }
  if (mean == 0) mean = 1 / damping;
  for (double share = damping;; share *= 10) {
    CHECK(share < 1e6 * damping + 1e6);  // diagonally dominant long before
    added_ = share * mean;
    if (decompose(gram, pool)) return;
  }
}

bool Factor::decompose(const calibrate::Gram& gram, ThreadPool& pool) {
  const int64_t n = columns();
  pool.parallel_for(n * n, 1 << 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      h_[static_cast<size_t>(i)] = static_cast<float>(gram.values[static_cast<size_t>(i)]);
    }
  });
  for (int64_t i = 0; i < n; ++i) {
    h_[static_cast<size_t>(i * (n + 1))] =
        static_cast<float>(diagonal_[static_cast<size_t>(i)] + added_);
  }
  for (int64_t end = n; end > 0;) {
    const int64_t begin = (end - 1) / kBlock * kBlock;
    if (!decompose_block(begin, end)) return false;
    solve_above(begin, end, pool);
    update_above(begin, end, pool);
    end = begin;
  }
  return true;
}

// Columns [begin, end) of rows [begin, end), in double. What lies to the right is done.
bool Factor::decompose_block(int64_t begin, int64_t end) {
  const int64_t n = columns(), size = end - begin;
  float* const a = h_.data();
  double h[kBlock][kBlock];
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = i; j < size; ++j) h[i][j] = a[(begin + i) * n + begin + j];
  }
  for (int64_t k = size - 1; k >= 0; --k) {
    const double d = h[k][k];
    // Less than this of what was put in is only the rounding of float sums.
    const double least = 1e-6 * (diagonal_[static_cast<size_t>(begin + k)] + added_);
    if (!(d > least)) return false;
    d_[static_cast<size_t>(begin + k)] = static_cast<float>(d);
    for (int64_t i = 0; i < k; ++i) h[i][k] /= d;
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = i; j < k; ++j) h[i][j] -= h[i][k] * d * h[j][k];
    }
  }
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = i + 1; j < size; ++j) {
      a[(begin + i) * n + begin + j] = static_cast<float>(h[i][j]);
    }
  }
  return true;
}

// U of rows [0, begin) in the block's columns: X (U_b + I)^T = A for X = U D, from the last column.
void Factor::solve_above(int64_t begin, int64_t end, ThreadPool& pool) {
  const int64_t n = columns(), size = end - begin;
  float* const a = h_.data();
  scaled_.resize(static_cast<size_t>(begin * size));
  pool.parallel_for(begin, 16, [&](int64_t row, int64_t last, int) {
    for (; row < last; ++row) {
      float* const x = a + row * n + begin;
      for (int64_t k = size - 1; k >= 0; --k) {
        double sum = x[k];
        const float* const u = a + (begin + k) * n + begin;
        for (int64_t j = k + 1; j < size; ++j) sum -= double{x[j]} * u[j];
        x[k] = static_cast<float>(sum);
      }
      float* const scaled = scaled_.data() + row * size;
      for (int64_t k = 0; k < size; ++k) {
        scaled[k] = x[k];
        x[k] /= d_[static_cast<size_t>(begin + k)];
      }
    }
  });
}

// A -= (U D) U^T over rows and columns [0, begin), on and above the diagonal.
void Factor::update_above(int64_t begin, int64_t end, ThreadPool& pool) {
  const int64_t n = columns(), size = end - begin;
  float* const a = h_.data();
  for (int64_t j = 0; j < begin; j += kPanel) {
    const int64_t width = std::min(kPanel, begin - j);
    kernels::SgemmCall call;
    call.transpose_b = true;
    call.n = width;
    call.k = size;
    call.alpha = -1;
    call.lda = size;
    call.b = a + j * n + begin;
    call.ldb = n;
    call.m = j + width;
    call.a = scaled_.data();
    call.beta = 1;
    call.c = a + j;
    call.ldc = n;
    kernels::sgemm(call, &pool);
  }
}

}  // namespace carat::quantize
