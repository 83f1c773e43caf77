#include "quantize/live_weights.h"

#include <utility>

#include "base/error.h"

namespace carat::quantize {

void LiveWeights::replace(model::TensorRef ref, DType dtype, std::vector<std::byte> rows) {
  if (before_.empty()) before_ = weights_.all;
  const kernels::Weight& found = weights_.at(ref.kind, ref.layer);
  CHECK(!found.empty());
  const auto id = static_cast<size_t>(found.id);
  kernels::Weight w;
  w.dtype = dtype;
  w.count = found.count;
  w.rows = found.rows;
  w.cols = found.cols;
  w.id = found.id;
  CHECK(static_cast<int64_t>(rows.size()) == w.count * w.matrix_size());
  own_[id] = std::move(rows);
  w.data = own_[id].data();
  weights_.all[id] = w;
}

void LiveWeights::restore(model::TensorRef ref) {
  const kernels::Weight& found = weights_.at(ref.kind, ref.layer);
  CHECK(!found.empty());
  const auto id = static_cast<size_t>(found.id);
  if (before_.empty()) return;
  weights_.all[id] = before_[id];
  own_[id] = {};
}

}  // namespace carat::quantize
