// Activations of the mobile format on the tape: rounded, but still floats.
#include <cmath>

#include "kernels/cpu/table.h"
#include "kernels/scalar/constants.h"
#include "kernels/scalar/static_round.h"
#include "train/tape_impl.h"

namespace carat::train {
namespace {

constexpr int64_t kBlock = kernels::kActivationBlock;

template <class T>
void round_block(const T* x, T* y) {
  T most = 0;
  for (int64_t i = 0; i < kBlock; ++i) most = std::max(most, std::abs(x[i]));
  if (most < T(kernels::scalar::kQuantizeZero)) {
    std::fill_n(y, kBlock, T(0));
    return;
  }
  const T scale = most / T(127), inverse = T(1) / scale;
  for (int64_t i = 0; i < kBlock; ++i) y[i] = std::nearbyint(x[i] * inverse) * scale;
}

}  // namespace

template <class T>
kernels::Value Tape<T>::rounded(const Value& x, float scale) {
  if (scale == 0) return x;
  const Value y = make(x->rows, x->cols);
  const int64_t cols = x->cols;
  const T step = static_cast<T>(scale);
  each(x->rows, row_grain(cols), [&](int64_t t) {
    kernels::scalar::static_round(node(x)->value + t * cols, cols, step, node(y)->value + t * cols);
  });
  record([this, x, y, cols, step] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    T* dx = gradient_of(node(x));
    const T* from = node(x)->value;
    each(x->rows, row_grain(cols), [&](int64_t t) {
      for (int64_t i = t * cols; i < (t + 1) * cols; ++i) {
        const T level = std::nearbyint(from[i] / step);
        if (level >= T(-128) && level <= T(127)) dx[i] += dy[i];
      }
    });
  });
  return y;
}

template <class T>
kernels::Value Tape<T>::rounded_blocks(const Value& x) {
  CHECK(x->cols % kBlock == 0);
  const Value y = make(x->rows, x->cols);
  const int64_t cols = x->cols;
  each(x->rows, row_grain(cols), [&](int64_t t) {
    for (int64_t i = t * cols; i < (t + 1) * cols; i += kBlock) {
      round_block(node(x)->value + i, node(y)->value + i);
    }
  });
  record([this, x, y, cols] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    T* dx = gradient_of(node(x));
    each(x->rows, row_grain(cols),
         [&](int64_t t) { loops_.axpy(cols, T(1), dy + t * cols, dx + t * cols); });
  });
  return y;
}

template kernels::Value Tape<float>::rounded(const Value&, float);
template kernels::Value Tape<double>::rounded(const Value&, float);
template kernels::Value Tape<float>::rounded_blocks(const Value&);
template kernels::Value Tape<double>::rounded_blocks(const Value&);

}  // namespace carat::train
