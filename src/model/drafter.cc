#include "model/drafter.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "model/layer_name.h"

namespace carat::model {
namespace {

using R = DrafterRow;
using D = const DrafterConfig&;
using C = TensorClass;

constexpr bool kOutside = false, kLayer = true;

Shape dim_vector(D d, int64_t) { return {d.layers.dim}; }
Shape one(D, int64_t) { return {1}; }
Shape embedding(D d, int64_t) { return {d.layers.vocab_size, d.layers.dim}; }
Shape pre_projection(D d, int64_t) { return {d.layers.dim, 2 * d.backbone_dim}; }
Shape post_projection(D d, int64_t) { return {d.backbone_dim, d.layers.dim}; }
Shape centroids(D d, int64_t) { return {d.n_centroids, d.layers.dim}; }
Shape ordering(D d, int64_t) { return {d.layers.vocab_size}; }
Shape q_matrix(D d, int64_t i) {
  return {d.layers.n_heads * d.layers.layer(i).head_dim, d.layers.dim};
}
Shape o_matrix(D d, int64_t i) {
  return {d.layers.dim, d.layers.n_heads * d.layers.layer(i).head_dim};
}
Shape head_vector(D d, int64_t i) { return {d.layers.layer(i).head_dim}; }
Shape ffn_in(D d, int64_t) { return {d.layers.ffn_dim, d.layers.dim}; }
Shape ffn_out(D d, int64_t) { return {d.layers.dim, d.layers.ffn_dim}; }

// clang-format off
constexpr R kTable[] = {
  {"model.embed_tokens.weight", "token_embd.weight", C::kEmbedding, kOutside, embedding, false, false},
  {"model.norm.weight", "output_norm.weight", C::kKeep, kOutside, dim_vector, false, false},
  {"pre_projection.weight", "nextn.pre_projection.weight", C::kMatrix, kOutside, pre_projection, false, false},
  {"post_projection.weight", "nextn.post_projection.weight", C::kMatrix, kOutside, post_projection, false, false},
  {"masked_embedding.centroids.weight", "masked_embd_centroids.weight", C::kMatrix, kOutside, centroids, true, false},
  {"masked_embedding.token_ordering", "masked_embd_ordering", C::kKeep, kOutside, ordering, true, true},
  {"model.layers.N.input_layernorm.weight", "blk.N.attn_norm.weight", C::kKeep, kLayer, dim_vector, false, false},
  {"model.layers.N.post_attention_layernorm.weight", "blk.N.post_attention_norm.weight", C::kKeep, kLayer, dim_vector, false, false},
  {"model.layers.N.pre_feedforward_layernorm.weight", "blk.N.ffn_norm.weight", C::kKeep, kLayer, dim_vector, false, false},
  {"model.layers.N.post_feedforward_layernorm.weight", "blk.N.post_ffw_norm.weight", C::kKeep, kLayer, dim_vector, false, false},
  {"model.layers.N.self_attn.q_proj.weight", "blk.N.attn_q.weight", C::kMatrix, kLayer, q_matrix, false, false},
  {"model.layers.N.self_attn.o_proj.weight", "blk.N.attn_output.weight", C::kMatrix, kLayer, o_matrix, false, false},
  {"model.layers.N.self_attn.q_norm.weight", "blk.N.attn_q_norm.weight", C::kKeep, kLayer, head_vector, false, false},
  {"model.layers.N.mlp.gate_proj.weight", "blk.N.ffn_gate.weight", C::kMatrix, kLayer, ffn_in, false, false},
  {"model.layers.N.mlp.up_proj.weight", "blk.N.ffn_up.weight", C::kMatrix, kLayer, ffn_in, false, false},
  {"model.layers.N.mlp.down_proj.weight", "blk.N.ffn_down.weight", C::kMatrix, kLayer, ffn_out, false, false},
  {"model.layers.N.layer_scalar", "blk.N.layer_output_scale.weight", C::kKeep, kLayer, one, false, false},
};
// clang-format on

}  // namespace

std::span<const DrafterRow> drafter_table() { return kTable; }

std::vector<DrafterTensor> drafter_tensors(const DrafterConfig& config) {
  std::vector<DrafterTensor> tensors;
  for (const R& row : kTable) {
    if (!row.per_layer && (!row.centroids || config.has_centroids())) tensors.push_back({&row, -1});
  }
  for (int64_t i = 0; i < config.layers.n_layers; ++i) {
    for (const R& row : kTable) {
      if (row.per_layer) tensors.push_back({&row, i});
    }
  }
  return tensors;
}

std::string drafter_hf_name(const DrafterTensor& t) { return with_layer(t.row->hf, t.layer); }
std::string drafter_gguf_name(const DrafterTensor& t) { return with_layer(t.row->gguf, t.layer); }

int64_t drafter_parameter_count(const DrafterConfig& config) {
  int64_t n = 0;
  for (const DrafterTensor& t : drafter_tensors(config)) {
    n += *element_count(drafter_shape(config, t));  // validate() bounds every dimension
  }
  return n;
}

void DrafterConfig::validate() const {
  layers.validate();
  const auto fail = [](const char* name, const std::string& expected, int64_t got) {
    throw Error({"the drafter's configuration is not usable", "", name, expected,
                 fmt::format("{}", got), "the file is damaged or describes another kind of model"});
  };
  if (backbone_dim < 1 || backbone_dim > (int64_t{1} << 20)) {
    fail("width of the model it drafts for", fmt::format("1 to {}", int64_t{1} << 20),
         backbone_dim);
  }
  if (layers.has_ple()) fail("width of the per-layer embeddings", "0", layers.ple_dim);
  if (layers.has_experts()) fail("number of experts", "0", layers.n_experts);
  if (layers.n_kv_shared_layers != 0) {
    fail("layers", "all of one kind", layers.n_kv_shared_layers);
  }
  if (!has_centroids()) return;
  if (n_centroids < 0 || n_centroids > layers.vocab_size || layers.vocab_size % n_centroids != 0) {
    fail("number of centroids", fmt::format("a divisor of the {} tokens", layers.vocab_size),
         n_centroids);
  }
  if (n_active_centroids < 1 || n_active_centroids > n_centroids) {
    fail("active centroids", fmt::format("1 to {}", n_centroids), n_active_centroids);
  }
}

}  // namespace carat::model
