#include "model/forward.h"

#include <cmath>

#include "base/error.h"
#include "model/layer.h"

namespace carat::model {

using kernels::Value;

Residual embed(const Weights& w, kernels::Ops& ops, const Step& step) {
  CHECK(step.tokens.size() == step.rows.size());
  Residual r;
  r.tokens.assign(step.tokens.begin(), step.tokens.end());
  r.rows.assign(step.rows.begin(), step.rows.end());
  // The square root is not rounded to bfloat16: see docs/architecture.md.
  r.x = ops.embed(w.at(TensorKind::kTokenEmbedding), step.tokens, 0, w.config.dim,
                  std::sqrt(static_cast<float>(w.config.dim)));
  if (w.config.has_ple()) r.embedded = r.x;
  return r;
}

Residual run_layers(const Weights& w, kernels::Ops& ops, const Step& step, Residual r,
                    int64_t begin, int64_t end) {
  CHECK(0 <= begin && begin <= end && end <= w.config.n_layers);
  const int64_t last_owner = w.config.n_owners() - 1;
  for (int64_t i = begin; i < end; ++i) {
    const bool can_reduce = step.skip && !r.reduced;
    if (can_reduce && i > last_owner) keep_wanted(ops, step, r);
    if (r.rows.empty()) break;
    const LayerCall call{w, ops, step, i, w.config.layer(i)};
    attention_block(call, r, can_reduce && i == last_owner);
    if (r.rows.empty()) break;
    r.x = w.config.has_experts() ? feed_forward_with_experts(call, r.x) : feed_forward(call, r.x);
    if (w.config.has_ple()) r.x = per_layer_block(call, r);
    r.x = ops.scale_by(r.x, call.at(TensorKind::kLayerScalar));
  }
  return r;
}

Value hidden(const Weights& w, kernels::Ops& ops, const Step& step) {
  const Residual r = run_layers(w, ops, step, embed(w, ops, step), 0, w.config.n_layers);
  const bool all = r.reduced || step.wanted.size() == r.rows.size();
  return all ? r.x : ops.take_rows(r.x, step.wanted);
}

Value logits_of(const Weights& w, kernels::Ops& ops, const Value& x) {
  const Value y = ops.rms_norm(x, &w.at(TensorKind::kOutputNorm), w.config.dim, w.config.norm_eps);
  const Value logits = ops.linear(
      y, w.at(w.config.tied_embeddings ? TensorKind::kTokenEmbedding : TensorKind::kLmHead));
  return w.config.final_softcap > 0 ? ops.softcap(logits, w.config.final_softcap) : logits;
}

Value forward(const Weights& w, kernels::Ops& ops, const Step& step) {
  return logits_of(w, ops, hidden(w, ops, step));
}

}  // namespace carat::model
