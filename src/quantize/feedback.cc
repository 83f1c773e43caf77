#include "quantize/feedback.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "kernels/cpu/sgemm.h"
#include "quant/grid.h"
#include "quant/scheme.h"

namespace carat::quantize {
namespace {

constexpr int64_t kRows = 32;    // that one thread takes
constexpr int64_t kPanel = 256;  // columns between two products with the rows of U before them

// sums[r, k] = sum_{j < begin} e[r, j] U[j, begin + k]
void sums_of_earlier(const Factor& factor, const float* e, int64_t rows, int64_t begin,
                     int64_t width, float* sums) {
  if (begin == 0) {
    std::fill_n(sums, rows * kPanel, 0.0f);
    return;
  }
  kernels::SgemmCall call;
  call.m = rows;
  call.n = width;
  call.k = begin;
  call.a = e;
  call.lda = factor.columns();
  call.b = factor.row(0) + begin;
  call.ldb = factor.columns();
  call.c = sums;
  call.ldc = kPanel;
  kernels::sgemm(call, nullptr);
}

void add_scaled(float* y, float a, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

// sum_k D_k (e_k + sum_j e_j U_jk)^2 - damping |e|^2 over rows of e.
double energy(const Factor& factor, const float* e, int64_t rows) {
  const int64_t n = factor.columns();
  std::vector<float> sums(static_cast<size_t>(kRows * kPanel));
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kPanel) {
    const int64_t width = std::min(kPanel, n - begin);
    sums_of_earlier(factor, e, rows, begin, width, sums.data());
    for (int64_t r = 0; r < rows; ++r) {
      float* const sum = sums.data() + r * kPanel;
      const float* const row = e + r * n + begin;
      for (int64_t k = 0; k < width; ++k) {
        const double t = double{row[k]} + sum[k];
        total += factor.d(begin + k) * t * t - factor.damping() * row[k] * row[k];
        add_scaled(sum + k + 1, row[k], factor.row(begin + k) + begin + k + 1, width - k - 1);
      }
    }
  }
  return total;
}

// Some rows of a matrix on their way through its columns.
class RowGroup {
 public:
  RowGroup(const FeedbackCall& call, const Factor& factor, int64_t first, int64_t rows)
      : call_(call),
        factor_(factor),
        first_(first),
        rows_(rows),
        block_(info(call.dtype).block_elements),
        error_(static_cast<size_t>(rows * call.columns)),
        sums_(static_cast<size_t>(kRows * kPanel)) {}

  OutputError run() {
    const int64_t n = call_.columns;
    OutputError found;
    for (int64_t begin = 0; begin < n; begin += kPanel) {
      const int64_t width = std::min(kPanel, n - begin);
      sums_of_earlier(factor_, error_.data(), rows_, begin, width, sums_.data());
      for (int64_t r = 0; r < rows_; ++r) {
        for (int64_t at = 0; at < width; at += block_) found.lost += block(r, begin, at, width);
      }
    }
    found.whole = energy(factor_, call_.weights + first_ * n, rows_);
    return found;
  }

 private:
  // Elements [begin + at, begin + at + block) of a row; the panel ends at begin + width.
  double block(int64_t r, int64_t begin, int64_t at, int64_t width) {
    const int64_t n = call_.columns, column = begin + at;
    const float* const w = call_.weights + (first_ + r) * n + column;
    float* const sum = sums_.data() + r * kPanel;
    float* const e = error_.data() + r * n + column;
    std::byte* const out =
        call_.out + (first_ + r) * row_bytes(call_.dtype, n) + row_bytes(call_.dtype, column);

    float target[quant::kSuperBlock];
    for (int k = 0; k < block_; ++k) target[k] = w[k] + sum[at + k];
    quant::encode_row(call_.dtype, target, out, block_, factor_.d() + column);
    quant::read_grid(call_.dtype, out, grid_);
    int8_t codes[quant::kSuperBlock];
    quant::read_codes(call_.dtype, out, codes);
    double lost = 0;
    for (int k = 0; k < block_; ++k) {
      const float now = w[k] + sum[at + k];
      if (now != target[k]) codes[k] = static_cast<int8_t>(grid_.nearest(k, now));
      const float value = grid_.value(k, codes[k]);
      e[k] = w[k] - value;
      const double rest = double{now} - value;
      lost += factor_.d(column + k) * rest * rest - factor_.damping() * e[k] * e[k];
      add_scaled(sum + at + k + 1, e[k], factor_.row(column + k) + column + k + 1,
                 width - at - k - 1);
    }
    quant::write_codes(call_.dtype, codes, out);
    return lost;
  }

  const FeedbackCall& call_;
  const Factor& factor_;
  int64_t first_, rows_;
  int block_;
  std::vector<float> error_;  // weights less values, [rows, columns]; 0 where nothing is chosen yet
  std::vector<float> sums_;   // [rows, kPanel]
  quant::Grid grid_;
};

// f(first, rows) over groups of rows; their results in order.
template <class F>
OutputError over_groups(const FeedbackCall& call, const Factor& factor, ThreadPool& pool, F f) {
  CHECK(quant::has_grid(call.dtype) && factor.columns() == call.columns);
  CHECK(call.columns % info(call.dtype).block_elements == 0);
  const int64_t groups = ceil_div(call.rows, kRows);
  std::vector<OutputError> parts(static_cast<size_t>(groups));
  pool.parallel_for(groups, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      parts[static_cast<size_t>(i)] = f(i * kRows, std::min(kRows, call.rows - i * kRows));
    }
  });
  OutputError sum;
  for (const OutputError& part : parts) sum.add(part);
  return sum;
}

}  // namespace

double OutputError::relative_rms() const {
  return whole > 0 ? std::sqrt(std::max(lost, 0.0) / whole) : 0;
}

OutputError encode_with_feedback(const FeedbackCall& call, const Factor& factor, ThreadPool& pool) {
  return over_groups(call, factor, pool, [&](int64_t first, int64_t rows) {
    return RowGroup(call, factor, first, rows).run();
  });
}

OutputError encode_by_weight(const FeedbackCall& call, const Factor& factor,
                             std::span<const float> column_weights, ThreadPool& pool) {
  CHECK(static_cast<int64_t>(column_weights.size()) == call.columns);
  pool.parallel_for(call.rows, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      quant::encode_row(call.dtype, call.weights + r * call.columns,
                        call.out + r * row_bytes(call.dtype, call.columns), call.columns,
                        column_weights.data());
    }
  });
  return output_error(call, factor, pool);
}

OutputError output_error(const FeedbackCall& call, const Factor& factor, ThreadPool& pool) {
  return over_groups(call, factor, pool, [&](int64_t first, int64_t rows) {
    const int64_t n = call.columns;
    std::vector<float> e(static_cast<size_t>(rows * n));
    quant::decode_row(call.dtype, call.out + first * row_bytes(call.dtype, n), e.data(), rows * n);
    for (int64_t i = 0; i < rows * n; ++i) e[static_cast<size_t>(i)] -= call.weights[first * n + i];
    OutputError found;
    found.lost = energy(factor, e.data(), rows);
    found.whole = energy(factor, call.weights + first * n, rows);
    return found;
  });
}

}  // namespace carat::quantize
