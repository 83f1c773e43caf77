#include "quantize/live_weights.h"

#include <utility>

#include "base/error.h"
#include "model/load.h"

namespace carat::quantize {

// The parameter as rows of another type, with no bytes yet.
kernels::Weight& LiveWeights::begin(model::TensorRef ref, DType dtype) {
  if (before_.empty()) before_ = weights_.all;
  const kernels::Weight& found = weights_.at(ref.kind, ref.layer);
  CHECK(!found.empty());
  kernels::Weight w;
  w.dtype = dtype;
  w.count = found.count;
  w.rows = found.rows;
  w.cols = found.cols;
  w.id = found.id;
  return weights_.all[static_cast<size_t>(w.id)] = w;
}

void LiveWeights::replace(model::TensorRef ref, DType dtype, std::vector<std::byte> rows) {
  kernels::Weight& w = begin(ref, dtype);
  CHECK(static_cast<int64_t>(rows.size()) == w.count * w.matrix_size());
  std::vector<std::byte>& own = own_[static_cast<size_t>(w.id)];
  own = std::move(rows);
  w.data = own.data();
}

void LiveWeights::replace_looked_up(model::TensorRef ref, DType dtype, const RandomAccessFile& file,
                                    int64_t offset) {
  kernels::Weight& w = begin(ref, dtype);
  w.file = &file;
  w.file_offset = offset;
}

void LiveWeights::restore(model::TensorRef ref) {
  const kernels::Weight& found = weights_.at(ref.kind, ref.layer);
  CHECK(!found.empty());
  const auto id = static_cast<size_t>(found.id);
  if (before_.empty()) return;
  weights_.all[id] = before_[id];
  own_[id] = {};
}

void use_encoded(const Job& job, const MatrixPlan& m, LiveWeights& live) {
  if (model::is_looked_up_only(job.source.config(), m.ref.kind)) {
    return look_up_encoded(job, m, live);
  }
  std::vector<std::byte> rows(static_cast<size_t>(*byte_count(m.dtype, m.shape)));
  job.store.read(m.name, 0, rows);
  live.replace(m.ref, m.dtype, std::move(rows));
}

void look_up_encoded(const Job& job, const MatrixPlan& m, LiveWeights& live) {
  const auto stored = job.store.find(m.name);
  CHECK(stored.has_value());
  live.replace_looked_up(m.ref, m.dtype, *stored->file, stored->offset);
}

}  // namespace carat::quantize
