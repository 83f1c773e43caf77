#include <cmath>

#include "model/layer.h"

namespace carat::model {
namespace {

using kernels::Value;

Value dense(const LayerCall& c, const Value& x) {
  const Value n = c.norm(x, TensorKind::kFfnNorm);
  const Value hidden = c.ops.gated(n, c.at(TensorKind::kGate), c.at(TensorKind::kUp));
  return c.ops.linear(hidden, c.at(TensorKind::kDown));
}

// The router looks at the residual itself, not at what the experts see.
kernels::Route route(const LayerCall& c, const Value& x) {
  const Config& config = c.weights.config;
  const Value z = c.norm(x, TensorKind::kRouterScale);
  const float factor = 1.0f / std::sqrt(static_cast<float>(config.dim));
  const Value logits = c.ops.linear(c.ops.scale(z, factor), c.at(TensorKind::kRouter));
  return c.ops.route(logits, c.at(TensorKind::kExpertScale), config.n_experts_active);
}

}  // namespace

Value feed_forward(const LayerCall& c, const Value& x) {
  return c.ops.add_norm(x, dense(c, x), c.at(TensorKind::kPostFfnNorm), c.weights.config.norm_eps);
}

Value feed_forward_with_experts(const LayerCall& c, const Value& x) {
  const Value d = c.norm(dense(c, x), TensorKind::kPostDenseNorm);
  const Value mixed =
      c.ops.experts(c.norm(x, TensorKind::kExpertsNorm), route(c, x),
                    c.at(TensorKind::kExpertsGateUp), c.at(TensorKind::kExpertsDown));
  const Value sum = c.ops.add(d, c.norm(mixed, TensorKind::kPostExpertsNorm));
  return c.ops.add_norm(x, sum, c.at(TensorKind::kPostFfnNorm), c.weights.config.norm_eps);
}

}  // namespace carat::model
