#include "model/weights.h"

#include <cmath>

#include "base/error.h"

namespace carat::model {
namespace {

const kernels::Weight kNoWeight;

}  // namespace

void Weights::index() {
  CHECK(refs.size() == all.size());
  const size_t columns = static_cast<size_t>(config.n_layers) + 1;
  index_.assign(static_cast<size_t>(TensorKind::kCount) * columns, -1);
  for (size_t i = 0; i < refs.size(); ++i) {
    CHECK(all[i].id == static_cast<int32_t>(i));
    const auto kind = static_cast<size_t>(refs[i].kind);
    index_[kind * columns + static_cast<size_t>(refs[i].layer + 1)] = static_cast<int32_t>(i);
  }
  rope_local_ = make_rope(config, false);
  rope_global_ = make_rope(config, true);
}

int64_t mapped_bytes(const Weights& weights) {
  int64_t bytes = 0;
  for (const kernels::Weight& w : weights.all) {
    const bool mapped = w.data && w.layout == kernels::Layout::kRows && w.rows > 1;
    if (mapped) bytes += w.count * w.matrix_size();
  }
  return bytes;
}

kernels::Rope make_rope(const Config& config, bool is_global) {
  kernels::Rope rope;
  rope.head_dim = is_global ? config.head_dim_global : config.head_dim_local;
  const double theta = is_global ? config.rope_theta_global : config.rope_theta_local;
  const int64_t pairs = rope.head_dim / 2;
  const int64_t turning = is_global ? config.rotated_pairs_global() : pairs;
  rope.inverse_frequency.assign(static_cast<size_t>(pairs), 0.0f);
  for (int64_t i = 0; i < turning; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(rope.head_dim);
    rope.inverse_frequency[static_cast<size_t>(i)] = static_cast<float>(std::pow(theta, exponent));
  }
  return rope;
}

const kernels::Weight& Weights::at(TensorKind kind, int64_t layer) const {
  CHECK(!index_.empty() && kind < TensorKind::kCount && layer >= -1 && layer < config.n_layers);
  const size_t columns = static_cast<size_t>(config.n_layers) + 1;
  const int32_t i = index_[static_cast<size_t>(kind) * columns + static_cast<size_t>(layer + 1)];
  return i < 0 ? kNoWeight : all[static_cast<size_t>(i)];
}

}  // namespace carat::model
