#include "app/traffic.h"

#include <algorithm>

#include "base/error.h"

namespace carat::app {
namespace {

using model::TensorKind;

int64_t weight_bytes(const model::Config& config, TensorKind kind, const kernels::Weight& w,
                     int64_t sequences) {
  const int64_t row =
      w.row_size() + (w.scales.empty() ? 0 : row_bytes(w.scales.dtype, w.cols / w.scales.columns));
  const int64_t all = w.count * w.rows * row;
  switch (kind) {
    case TensorKind::kTokenEmbedding:
      return (config.tied_embeddings ? all : 0) + sequences * row;
    case TensorKind::kPleTable:
      return sequences * row;
    case TensorKind::kExpertsGateUp:
    case TensorKind::kExpertsDown:
      return all / config.n_experts * config.n_experts_active;
    default:
      return all;
  }
}

// Keys and values of one position in one layer.
int64_t kv_position_bytes(const model::LayerConfig& layer, kernels::KvType kv) {
  return 2 * layer.n_kv_heads * kernels::kv_vector_bytes(kv, layer.head_dim);
}

// Multiply-adds of one row, in the matrices of one layer.
struct LayerCost {
  int64_t keys_values = 0;  // the projections of K and V
  int64_t rest = 0;
};

std::vector<LayerCost> layer_costs(const model::Model& model, int64_t* output) {
  const model::Config& config = model.config();
  std::vector<LayerCost> costs(static_cast<size_t>(config.n_layers));
  for (size_t i = 0; i < model.weights.refs.size(); ++i) {
    const model::TensorRef ref = model.weights.refs[i];
    const kernels::Weight& w = model.weights.all[i];
    const int64_t product = w.rows * w.cols;
    const auto layer = static_cast<size_t>(ref.layer);
    switch (ref.kind) {
      case TensorKind::kTokenEmbedding:
        if (config.tied_embeddings) *output = product;
        break;
      case TensorKind::kLmHead:
        *output = product;
        break;
      case TensorKind::kPleProjection:  // each layer multiplies by its slice
        for (LayerCost& c : costs) c.rest += config.ple_dim * w.cols;
        break;
      case TensorKind::kK:
      case TensorKind::kV:
        costs[layer].keys_values += product;
        break;
      case TensorKind::kExpertsGateUp:
      case TensorKind::kExpertsDown:
        costs[layer].rest += config.n_experts_active * product;
        break;
      case TensorKind::kQ:
      case TensorKind::kO:
      case TensorKind::kGate:
      case TensorKind::kUp:
      case TensorKind::kDown:
      case TensorKind::kRouter:
      case TensorKind::kPleGate:
      case TensorKind::kPleOut:
        costs[layer].rest += product;
        break;
      default:
        break;  // norms, scalars and tables multiply no matrix
    }
  }
  return costs;
}

// Keys that queries at positions [first, first + n) see, added up.
int64_t visible_keys(const model::LayerConfig& layer, int64_t first, int64_t n) {
  int64_t keys = 0;
  for (int64_t p = first; p < first + n; ++p) {
    keys += layer.window > 0 ? std::min(p + 1, layer.window) : p + 1;
  }
  return keys;
}

}  // namespace

StepBytes decode_step_bytes(const model::Model& model, kernels::KvType kv, int64_t position,
                            int64_t sequences) {
  const model::Config& config = model.config();
  StepBytes bytes;
  for (size_t i = 0; i < model.weights.refs.size(); ++i) {
    bytes.weights +=
        weight_bytes(config, model.weights.refs[i].kind, model.weights.all[i], sequences);
  }
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const model::LayerConfig layer = config.layer(i);
    const int64_t read =
        sequences * visible_keys(layer, position, 1) * kv_position_bytes(layer, kv);
    (layer.is_global ? bytes.kv_global : bytes.kv_local) += read;
  }
  return bytes;
}

int64_t decode_bytes(const model::Model& model, kernels::KvType kv, int64_t position) {
  return decode_step_bytes(model, kv, position).total();
}

StepMultiplyAdds prefill_multiply_adds(const model::Model& model, int64_t first, int64_t n,
                                       int64_t wanted) {
  CHECK(n >= 1 && 1 <= wanted && wanted <= n);
  const model::Config& config = model.config();
  int64_t output = 0;
  const std::vector<LayerCost> costs = layer_costs(model, &output);
  StepMultiplyAdds sum;
  sum.matrices = wanted * output;
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const model::LayerConfig layer = config.layer(i);
    const LayerCost& cost = costs[static_cast<size_t>(i)];
    const int64_t rows = i < config.n_owners() - 1 ? n : wanted;
    sum.matrices += rows * cost.rest + (layer.owns_kv ? n * cost.keys_values : 0);
    sum.attention +=
        2 * config.n_heads * layer.head_dim * visible_keys(layer, first + n - rows, rows);
  }
  return sum;
}

}  // namespace carat::app
