// Per-layer embeddings of the E kind. The table holds, for every token, one vector for each layer;
// only the slices of layers that run are looked up and projected.
#include <cmath>

#include "model/layer.h"

namespace carat::model {
namespace {

using kernels::Value;

// (norm(W_slice e / sqrt(dim)) + table row * sqrt(ple_dim)) / sqrt(2)
Value per_layer_input(const LayerCall& c, const Residual& r) {
  const Config& config = c.weights.config;
  const int64_t width = config.ple_dim;
  const int64_t begin = c.index * width;
  const Value looked_up = c.ops.embed(c.weights.at(TensorKind::kPleTable), r.tokens, begin, width,
                                      std::sqrt(static_cast<float>(width)));
  const kernels::Weight slice =
      kernels::slice_rows(c.weights.at(TensorKind::kPleProjection), begin, width);
  const Value projected = c.ops.scale(c.ops.linear(r.embedded, slice),
                                      1.0f / std::sqrt(static_cast<float>(config.dim)));
  const Value context = c.ops.rms_norm(projected, &c.weights.at(TensorKind::kPleProjectionNorm),
                                       width, config.norm_eps);
  return c.ops.scale(c.ops.add(context, looked_up), std::sqrt(0.5f));
}

}  // namespace

Value per_layer_block(const LayerCall& c, const Residual& r) {
  const Value gate = c.ops.linear(r.x, c.at(TensorKind::kPleGate));
  const Value gated = c.ops.geglu(gate, per_layer_input(c, r));
  return c.ops.add_norm(r.x, c.ops.linear(gated, c.at(TensorKind::kPleOut)),
                        c.at(TensorKind::kPlePostNorm), c.weights.config.norm_eps);
}

}  // namespace carat::model
