#include "model/tensors.h"

#include <fmt/format.h>

#include "base/error.h"

namespace carat::model {
namespace {

using K = TensorKind;
using C = TensorClass;
using ShapeOf = Shape (*)(const Config&, int64_t);
using PresenceOf = Presence (*)(const Config&, int64_t);

// -- shapes -----------------------------------------------------------------------------------

Shape dim_vector(const Config& c, int64_t) { return {c.dim}; }
Shape one(const Config&, int64_t) { return {1}; }
Shape head_vector(const Config& c, int64_t i) { return {c.layer(i).head_dim}; }
Shape embedding(const Config& c, int64_t) { return {c.vocab_size, c.dim}; }
Shape ple_table(const Config& c, int64_t) { return {c.ple_vocab_size, c.n_layers * c.ple_dim}; }
Shape ple_projection(const Config& c, int64_t) { return {c.n_layers * c.ple_dim, c.dim}; }
Shape ple_vector(const Config& c, int64_t) { return {c.ple_dim}; }
Shape ple_in(const Config& c, int64_t) { return {c.ple_dim, c.dim}; }
Shape ple_out(const Config& c, int64_t) { return {c.dim, c.ple_dim}; }
Shape q_matrix(const Config& c, int64_t i) { return {c.n_heads * c.layer(i).head_dim, c.dim}; }
Shape o_matrix(const Config& c, int64_t i) { return {c.dim, c.n_heads * c.layer(i).head_dim}; }
Shape kv_matrix(const Config& c, int64_t i) {
  const LayerConfig l = c.layer(i);
  return {l.n_kv_heads * l.head_dim, c.dim};
}
Shape ffn_in(const Config& c, int64_t i) { return {c.layer(i).ffn_dim, c.dim}; }
Shape ffn_out(const Config& c, int64_t i) { return {c.dim, c.layer(i).ffn_dim}; }
Shape router(const Config& c, int64_t) { return {c.n_experts, c.dim}; }
Shape expert_vector(const Config& c, int64_t) { return {c.n_experts}; }
Shape experts_in(const Config& c, int64_t) { return {c.n_experts, 2 * c.expert_ffn_dim, c.dim}; }
Shape experts_out(const Config& c, int64_t) { return {c.n_experts, c.dim, c.expert_ffn_dim}; }

// -- presence ---------------------------------------------------------------------------------

Presence always(const Config&, int64_t) { return Presence::kRequired; }
Presence if_untied(const Config& c, int64_t) {
  return c.tied_embeddings ? Presence::kUnused : Presence::kRequired;
}
Presence with_ple(const Config& c, int64_t) {
  return c.has_ple() ? Presence::kRequired : Presence::kAbsent;
}
Presence with_experts(const Config& c, int64_t) {
  return c.has_experts() ? Presence::kRequired : Presence::kAbsent;
}
Presence of_owner(const Config& c, int64_t i) {
  return c.layer(i).owns_kv ? Presence::kRequired : Presence::kUnused;
}
Presence of_owner_with_v(const Config& c, int64_t i) {
  return c.layer(i).k_eq_v ? Presence::kAbsent : of_owner(c, i);
}

constexpr bool kOutside = false, kLayer = true;

// clang-format off
constexpr TensorRow kTable[] = {
  {K::kTokenEmbedding, "embed_tokens.weight", "token_embd.weight", C::kEmbedding, kOutside, embedding, always},
  {K::kOutputNorm, "norm.weight", "output_norm.weight", C::kKeep, kOutside, dim_vector, always},
  {K::kPleTable, "embed_tokens_per_layer.weight", "per_layer_token_embd.weight", C::kPleTable, kOutside, ple_table, with_ple},
  {K::kPleProjection, "per_layer_model_projection.weight", "per_layer_model_proj.weight", C::kPleProjection, kOutside, ple_projection, with_ple},
  {K::kPleProjectionNorm, "per_layer_projection_norm.weight", "per_layer_proj_norm.weight", C::kKeep, kOutside, ple_vector, with_ple},

  {K::kAttnNorm, "layers.N.input_layernorm.weight", "blk.N.attn_norm.weight", C::kKeep, kLayer, dim_vector, always},
  {K::kPostAttnNorm, "layers.N.post_attention_layernorm.weight", "blk.N.post_attention_norm.weight", C::kKeep, kLayer, dim_vector, always},
  {K::kFfnNorm, "layers.N.pre_feedforward_layernorm.weight", "blk.N.ffn_norm.weight", C::kKeep, kLayer, dim_vector, always},
  {K::kPostFfnNorm, "layers.N.post_feedforward_layernorm.weight", "blk.N.post_ffw_norm.weight", C::kKeep, kLayer, dim_vector, always},

  {K::kQ, "layers.N.self_attn.q_proj.weight", "blk.N.attn_q.weight", C::kMatrix, kLayer, q_matrix, always},
  {K::kK, "layers.N.self_attn.k_proj.weight", "blk.N.attn_k.weight", C::kMatrix, kLayer, kv_matrix, of_owner},
  {K::kV, "layers.N.self_attn.v_proj.weight", "blk.N.attn_v.weight", C::kMatrix, kLayer, kv_matrix, of_owner_with_v},
  {K::kO, "layers.N.self_attn.o_proj.weight", "blk.N.attn_output.weight", C::kMatrix, kLayer, o_matrix, always},
  {K::kQNorm, "layers.N.self_attn.q_norm.weight", "blk.N.attn_q_norm.weight", C::kKeep, kLayer, head_vector, always},
  {K::kKNorm, "layers.N.self_attn.k_norm.weight", "blk.N.attn_k_norm.weight", C::kKeep, kLayer, head_vector, of_owner},

  {K::kGate, "layers.N.mlp.gate_proj.weight", "blk.N.ffn_gate.weight", C::kMatrix, kLayer, ffn_in, always},
  {K::kUp, "layers.N.mlp.up_proj.weight", "blk.N.ffn_up.weight", C::kMatrix, kLayer, ffn_in, always},
  {K::kDown, "layers.N.mlp.down_proj.weight", "blk.N.ffn_down.weight", C::kMatrix, kLayer, ffn_out, always},

  {K::kRouter, "layers.N.router.proj.weight", "blk.N.ffn_gate_inp.weight", C::kKeep, kLayer, router, with_experts},
  {K::kRouterScale, "layers.N.router.scale", "blk.N.ffn_gate_inp.scale", C::kKeep, kLayer, dim_vector, with_experts},
  {K::kExpertScale, "layers.N.router.per_expert_scale", "blk.N.ffn_down_exps.scale", C::kKeep, kLayer, expert_vector, with_experts},
  {K::kExpertsGateUp, "layers.N.experts.gate_up_proj", "blk.N.ffn_gate_up_exps.weight", C::kMatrix, kLayer, experts_in, with_experts},
  {K::kExpertsDown, "layers.N.experts.down_proj", "blk.N.ffn_down_exps.weight", C::kMatrix, kLayer, experts_out, with_experts},
  {K::kExpertsNorm, "layers.N.pre_feedforward_layernorm_2.weight", "blk.N.pre_ffw_norm_2.weight", C::kKeep, kLayer, dim_vector, with_experts},
  {K::kPostDenseNorm, "layers.N.post_feedforward_layernorm_1.weight", "blk.N.post_ffw_norm_1.weight", C::kKeep, kLayer, dim_vector, with_experts},
  {K::kPostExpertsNorm, "layers.N.post_feedforward_layernorm_2.weight", "blk.N.post_ffw_norm_2.weight", C::kKeep, kLayer, dim_vector, with_experts},

  {K::kPleGate, "layers.N.per_layer_input_gate.weight", "blk.N.inp_gate.weight", C::kMatrix, kLayer, ple_in, with_ple},
  {K::kPleOut, "layers.N.per_layer_projection.weight", "blk.N.proj.weight", C::kMatrix, kLayer, ple_out, with_ple},
  {K::kPlePostNorm, "layers.N.post_per_layer_input_norm.weight", "blk.N.post_norm.weight", C::kKeep, kLayer, dim_vector, with_ple},
  {K::kLayerScalar, "layers.N.layer_scalar", "blk.N.layer_output_scale.weight", C::kKeep, kLayer, one, always},
  {K::kLmHead, "lm_head.weight", "output.weight", C::kEmbedding, kOutside, embedding, if_untied},
};
// clang-format on

static_assert(std::size(kTable) == static_cast<size_t>(K::kCount));
constexpr bool in_order() {
  for (size_t i = 0; i < std::size(kTable); ++i) {
    if (kTable[i].kind != static_cast<K>(i)) return false;
  }
  return true;
}
static_assert(in_order(), "rows are found by their kind");

// -- parts of a checkpoint that text does not need ----------------------------------------------

struct Part {
  const char* prefix;
  const char* name;
};

// The embedders come first under some of these names with and without the outer "model.".
constexpr Part kParts[] = {
    {"vision_tower.", "vision tower"},      {"vision_embedder.", "vision embedder"},
    {"embed_vision.", "vision projection"}, {"audio_tower.", "audio tower"},
    {"embed_audio.", "audio projection"},
};

const char* part_of(std::string_view name) {
  if (name.starts_with("model.")) name.remove_prefix(6);
  if (name.starts_with("language_model.")) name.remove_prefix(15);
  for (const Part& p : kParts) {
    if (name.starts_with(p.prefix)) return p.name;
  }
  return nullptr;
}

// The output matrix stands beside the model, not in it.
const char* prefix_of(Naming naming, K kind) {
  if (kind == K::kLmHead) return naming == Naming::kHfOld ? "language_model." : "";
  switch (naming) {
    case Naming::kGguf:
      return "";
    case Naming::kHf:
      return "model.";
    case Naming::kHfMultimodal:
      return "model.language_model.";
    case Naming::kHfOld:
      return "language_model.model.";
  }
  CHECK(false);
}

}  // namespace

std::span<const TensorRow> tensor_table() { return kTable; }

const TensorRow& row_of(TensorKind kind) {
  CHECK(kind < K::kCount);
  return kTable[static_cast<size_t>(kind)];
}

std::string name_of(TensorRef t, Naming naming) {
  const TensorRow& row = row_of(t.kind);
  std::string name = prefix_of(naming, t.kind);
  const std::string_view pattern = naming == Naming::kGguf ? row.gguf : row.hf;
  const size_t n = row.per_layer ? pattern.find(".N.") : std::string_view::npos;
  if (n == std::string_view::npos) return name.append(pattern);
  name.append(pattern.substr(0, n + 1));
  name.append(fmt::format("{}", t.layer));
  return name.append(pattern.substr(n + 2));
}

std::vector<TensorRef> required_tensors(const Config& config) {
  std::vector<TensorRef> refs;
  const auto add = [&](bool per_layer, int64_t layer) {
    for (const TensorRow& row : kTable) {
      if (row.per_layer == per_layer && row.presence(config, layer) == Presence::kRequired) {
        refs.push_back({row.kind, layer});
      }
    }
  };
  add(kOutside, -1);
  for (int64_t i = 0; i < config.n_layers; ++i) add(kLayer, i);
  return refs;
}

int64_t parameter_count(const Config& config) {
  int64_t n = 0;
  for (const TensorRef t : required_tensors(config)) {
    const auto count = element_count(shape_of(config, t));
    CHECK(count.has_value());  // validate() bounds every dimension
    n += *count;
  }
  return n;
}

TensorNames::TensorNames(const Config& config, Naming naming) : naming_(naming) {
  using Need = TensorRole::Need;
  for (const TensorRow& row : kTable) {
    const int64_t begin = row.per_layer ? 0 : -1;
    const int64_t end = row.per_layer ? config.n_layers : 0;
    for (int64_t i = begin; i < end; ++i) {
      const TensorRef ref{row.kind, i};
      switch (row.presence(config, i)) {
        case Presence::kRequired:
          roles_[name_of(ref, naming)] = {Need::kRequired, ref, ""};
          break;
        case Presence::kUnused:
          roles_[name_of(ref, naming)] = {Need::kSkipped, ref,
                                          row.kind == K::kLmHead
                                              ? "copy of the output matrix"
                                              : "K and V of layers that share them"};
          break;
        case Presence::kAbsent:
          break;
      }
    }
  }
  if (naming == Naming::kGguf) {
    roles_[kRopeFreqsName] = {Need::kSkipped, {TensorKind::kCount, -1}, "rotary frequencies"};
  }
}

TensorRole TensorNames::role(std::string_view name) const {
  const auto it = roles_.find(std::string(name));
  if (it != roles_.end()) return it->second;
  if (naming_ == Naming::kGguf) return {};
  if (const char* part = part_of(name)) {
    return {TensorRole::Need::kSkipped, {TensorKind::kCount, -1}, part};
  }
  return {};
}

}  // namespace carat::model
