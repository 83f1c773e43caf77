#include "base/error.h"
#include "model/layer.h"

namespace carat::model {
namespace {

using kernels::Value;

struct KeyValue {
  Value k, v;
};

KeyValue project_kv(const LayerCall& c, const Value& h, std::span<const kernels::RowRef> rows) {
  const LayerConfig& l = c.layer;
  const float eps = c.weights.config.norm_eps;
  const Value raw_k = c.ops.linear(h, c.at(TensorKind::kK));
  const Value normed = c.ops.rms_norm(raw_k, &c.at(TensorKind::kKNorm), l.head_dim, eps);
  // Where K is V, V is the raw projection: before the norm and the rotation of K.
  const Value raw_v = l.k_eq_v ? raw_k : c.ops.linear(h, c.at(TensorKind::kV));
  return {c.ops.rope(normed, c.weights.rope(l.is_global), rows),
          c.ops.rms_norm(raw_v, nullptr, l.head_dim, eps)};
}

Value project_q(const LayerCall& c, const Value& h, std::span<const kernels::RowRef> rows) {
  const Value raw = c.ops.linear(h, c.at(TensorKind::kQ));
  const Value normed =
      c.ops.rms_norm(raw, &c.at(TensorKind::kQNorm), c.layer.head_dim, c.weights.config.norm_eps);
  return c.ops.rope(normed, c.weights.rope(c.layer.is_global), rows);
}

}  // namespace

void keep_wanted(kernels::Ops& ops, const Step& step, Residual& r) {
  r.reduced = true;
  if (step.wanted.size() == r.rows.size()) return;  // all of them: ascending and distinct
  r.x = ops.take_rows(r.x, step.wanted);
  if (r.embedded) r.embedded = ops.take_rows(r.embedded, step.wanted);
  std::vector<int32_t> tokens;
  std::vector<kernels::RowRef> rows;
  for (const int32_t i : step.wanted) {
    tokens.push_back(r.tokens[static_cast<size_t>(i)]);
    rows.push_back(r.rows[static_cast<size_t>(i)]);
  }
  r.tokens = std::move(tokens);
  r.rows = std::move(rows);
}

void attention_block(const LayerCall& c, Residual& r, bool keep_only_wanted) {
  Value h = c.norm(r.x, TensorKind::kAttnNorm);
  KeyValue kv;
  std::vector<kernels::RowRef> kv_rows;
  if (c.layer.owns_kv) {
    kv = project_kv(c, h, r.rows);
    kv_rows = r.rows;
  }
  if (keep_only_wanted) {
    if (c.step.wanted.size() != r.rows.size()) h = c.ops.take_rows(h, c.step.wanted);
    keep_wanted(c.ops, c.step, r);
  }
  const Value q = project_q(c, h, r.rows);

  kernels::AttentionCall call;
  call.n_heads = c.weights.config.n_heads;
  call.n_kv_heads = c.layer.n_kv_heads;
  call.head_dim = c.layer.head_dim;
  call.window = c.layer.window;
  call.kv_layer = c.layer.kv_layer;
  if (!c.weights.kv_scales.empty()) {
    const KvScales& scales = c.weights.kv_scales[static_cast<size_t>(c.layer.kv_layer)];
    call.k_scale = scales.k;
    call.v_scale = scales.v;
  }
  call.q_rows = r.rows;
  call.kv_rows = kv_rows;
  if (c.step.kv) call.sequences = c.step.kv(c.layer.kv_layer);
  const Value mixed = c.ops.attention(q, kv.k, kv.v, call);
  if (r.rows.empty()) return;
  r.x = c.ops.add_norm(r.x, c.ops.linear(mixed, c.at(TensorKind::kO)),
                       c.at(TensorKind::kPostAttnNorm), c.weights.config.norm_eps);
}

}  // namespace carat::model
