// The pieces of one layer. Internal to the forward pass.
#pragma once

#include "kernels/ops.h"
#include "model/forward.h"

namespace carat::model {

// One layer of one call.
struct LayerCall {
  const Weights& weights;
  kernels::Ops& ops;
  const Step& step;
  int64_t index;
  LayerConfig layer;

  const kernels::Weight& at(TensorKind kind) const { return weights.at(kind, index); }
  kernels::Value norm(const kernels::Value& x, TensorKind kind) const {
    return ops.rms_norm(x, &at(kind), x->cols, weights.config.norm_eps);
  }
};

// Keeps only the rows whose logits are wanted.
void keep_wanted(kernels::Ops& ops, const Step& step, Residual& residual);

// x + norm(W_o attention(x)). With keep_only_wanted, K and V are stored for every row, and then
// only the wanted rows ask and stay.
void attention_block(const LayerCall& call, Residual& residual, bool keep_only_wanted);

// x + norm(feed forward(x)), dense or beside a mixture of experts.
kernels::Value feed_forward(const LayerCall& call, const kernels::Value& x);
kernels::Value feed_forward_with_experts(const LayerCall& call, const kernels::Value& x);

// x + norm(W_out(gelu(W_gate x) * this layer's per-layer input)).
kernels::Value per_layer_block(const LayerCall& call, const Residual& residual);

}  // namespace carat::model
