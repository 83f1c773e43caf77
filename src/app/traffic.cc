#include "app/traffic.h"

#include <algorithm>

namespace carat::app {
namespace {

int64_t weight_bytes(const model::Config& config, model::TensorKind kind,
                     const kernels::Weight& w) {
  const int64_t all = w.count * w.rows * w.row_size();
  switch (kind) {
    case model::TensorKind::kTokenEmbedding:
      return all + w.row_size();
    case model::TensorKind::kPleTable:
      return w.row_size();
    case model::TensorKind::kExpertsGateUp:
    case model::TensorKind::kExpertsDown:
      return all / config.n_experts * config.n_experts_active;
    default:
      return all;
  }
}

// Keys and values of one position in one layer.
int64_t kv_position_bytes(const model::LayerConfig& layer, kernels::KvType kv) {
  const int64_t scale = kv == kernels::KvType::kI8 ? 4 : 0;
  return 2 * layer.n_kv_heads * (layer.head_dim * kernels::kv_element_bytes(kv) + scale);
}

}  // namespace

int64_t decode_bytes(const model::Model& model, kernels::KvType kv, int64_t position) {
  const model::Config& config = model.config();
  int64_t bytes = 0;
  for (size_t i = 0; i < model.weights.refs.size(); ++i) {
    bytes += weight_bytes(config, model.weights.refs[i].kind, model.weights.all[i]);
  }
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const model::LayerConfig layer = config.layer(i);
    const int64_t keys = layer.window > 0 ? std::min(position + 1, layer.window) : position + 1;
    bytes += keys * kv_position_bytes(layer, kv);
  }
  return bytes;
}

}  // namespace carat::app
