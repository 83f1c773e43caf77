#include "model/towers.h"

#include "base/error.h"
#include "model/layer_name.h"

namespace carat::model {
namespace {

using R = TowerRow;
using P = TowerRow::Part;
using K = TowerRow::Kind;
using G = TowerChange;
using C = const TowersConfig&;

constexpr bool kEncoder = false, kUnified = true;
constexpr bool kOnce = false, kLayer = true;

// -- shapes ---------------------------------------------------------------------------------------

constexpr int64_t kColours = 3;

int64_t patch_values(C c) { return kColours * c.vision->model_patch() * c.vision->model_patch(); }

Shape v_dim(C c) { return {c.vision->dim}; }
Shape v_head(C c) { return {c.vision->head_dim}; }
Shape v_qkv(C c) { return {c.vision->n_heads * c.vision->head_dim, c.vision->dim}; }
Shape v_out(C c) { return {c.vision->dim, c.vision->n_heads * c.vision->head_dim}; }
Shape v_up(C c) { return {c.vision->ffn_dim, c.vision->dim}; }
Shape v_down(C c) { return {c.vision->dim, c.vision->ffn_dim}; }
Shape v_patch(C c) { return {c.vision->dim, patch_values(c)}; }
Shape v_patch_planes(C c) { return {c.vision->dim, kColours, c.vision->patch, c.vision->patch}; }
Shape v_patch_vector(C c) { return {patch_values(c)}; }
Shape v_positions(C c) { return {2, c.vision->n_positions, c.vision->dim}; }
Shape v_positions_pairs(C c) { return {c.vision->n_positions, 2, c.vision->dim}; }
Shape v_embed(C c) { return {c.text_dim, c.vision->dim}; }

Shape a_dim(C c) { return {c.audio->dim}; }
Shape a_head(C c) { return {c.audio->head_dim()}; }
Shape a_square(C c) { return {c.audio->dim, c.audio->dim}; }
Shape a_up(C c) { return {c.audio->ffn_dim(), c.audio->dim}; }
Shape a_down(C c) { return {c.audio->dim, c.audio->ffn_dim()}; }
Shape a_start(C c) { return {2 * c.audio->dim, c.audio->dim}; }
Shape a_depthwise(C c) { return {c.audio->dim, 1, c.audio->conv_kernel}; }
Shape a_depthwise_flat(C c) { return {c.audio->dim, c.audio->conv_kernel}; }
Shape a_conv0(C c) { return {c.audio->conv_channels[0], 1, 3, 3}; }
Shape a_conv1(C c) { return {c.audio->conv_channels[1], c.audio->conv_channels[0], 3, 3}; }
Shape a_norm0(C c) { return {c.audio->conv_channels[0]}; }
Shape a_norm1(C c) { return {c.audio->conv_channels[1]}; }
// Two convolutions of stride 2 leave a quarter of the mel bins.
Shape a_in(C c) { return {c.audio->dim, c.audio->n_mel_bins / 4 * c.audio->conv_channels[1]}; }
Shape a_output(C c) { return {c.audio->out_dim, c.audio->dim}; }
Shape a_output_bias(C c) { return {c.audio->out_dim}; }
Shape a_embed(C c) { return {c.text_dim, c.audio->out_dim}; }

// clang-format off
constexpr R kTable[] = {
  // Vision with an encoder.
  {"patch_embedder.input_proj.weight", "v.patch_embd.weight", P::kVision, kEncoder, kOnce, v_patch, v_patch_planes, K::kFloat, G::kPlanes},
  {"patch_embedder.position_embedding_table", "v.position_embd.weight", P::kVision, kEncoder, kOnce, v_positions, nullptr, K::kFloat, G::kNone},
  {"encoder.layers.N.input_layernorm.weight", "v.blk.N.ln1.weight", P::kVision, kEncoder, kLayer, v_dim, nullptr, K::kFloat, G::kNone},
  {"encoder.layers.N.post_attention_layernorm.weight", "v.blk.N.attn_post_norm.weight", P::kVision, kEncoder, kLayer, v_dim, nullptr, K::kFloat, G::kNone},
  {"encoder.layers.N.pre_feedforward_layernorm.weight", "v.blk.N.ln2.weight", P::kVision, kEncoder, kLayer, v_dim, nullptr, K::kFloat, G::kNone},
  {"encoder.layers.N.post_feedforward_layernorm.weight", "v.blk.N.ffn_post_norm.weight", P::kVision, kEncoder, kLayer, v_dim, nullptr, K::kFloat, G::kNone},
  {"encoder.layers.N.self_attn.q_proj.linear.weight", "v.blk.N.attn_q.weight", P::kVision, kEncoder, kLayer, v_qkv, nullptr, K::kLinear, G::kNone},
  {"encoder.layers.N.self_attn.k_proj.linear.weight", "v.blk.N.attn_k.weight", P::kVision, kEncoder, kLayer, v_qkv, nullptr, K::kLinear, G::kNone},
  {"encoder.layers.N.self_attn.v_proj.linear.weight", "v.blk.N.attn_v.weight", P::kVision, kEncoder, kLayer, v_qkv, nullptr, K::kLinear, G::kNone},
  {"encoder.layers.N.self_attn.o_proj.linear.weight", "v.blk.N.attn_out.weight", P::kVision, kEncoder, kLayer, v_out, nullptr, K::kLinear, G::kNone},
  {"encoder.layers.N.self_attn.q_norm.weight", "v.blk.N.attn_q_norm.weight", P::kVision, kEncoder, kLayer, v_head, nullptr, K::kFloat, G::kNone},
  {"encoder.layers.N.self_attn.k_norm.weight", "v.blk.N.attn_k_norm.weight", P::kVision, kEncoder, kLayer, v_head, nullptr, K::kFloat, G::kNone},
  {"encoder.layers.N.mlp.gate_proj.linear.weight", "v.blk.N.ffn_gate.weight", P::kVision, kEncoder, kLayer, v_up, nullptr, K::kLinear, G::kNone},
  {"encoder.layers.N.mlp.up_proj.linear.weight", "v.blk.N.ffn_up.weight", P::kVision, kEncoder, kLayer, v_up, nullptr, K::kLinear, G::kNone},
  {"encoder.layers.N.mlp.down_proj.linear.weight", "v.blk.N.ffn_down.weight", P::kVision, kEncoder, kLayer, v_down, nullptr, K::kLinear, G::kNone},
  {"std_bias", "v.std_bias", P::kVision, kEncoder, kOnce, v_dim, nullptr, K::kStandard, G::kNone},
  {"std_scale", "v.std_scale", P::kVision, kEncoder, kOnce, v_dim, nullptr, K::kStandard, G::kNone},
  {"embedding_projection.weight", "mm.input_projection.weight", P::kVisionEmbed, kEncoder, kOnce, v_embed, nullptr, K::kMatrix, G::kNone},

  // Vision without.
  {"patch_ln1.weight", "v.patch_norm.1.weight", P::kVision, kUnified, kOnce, v_patch_vector, nullptr, K::kFloat, G::kPlanes},
  {"patch_ln1.bias", "v.patch_norm.1.bias", P::kVision, kUnified, kOnce, v_patch_vector, nullptr, K::kFloat, G::kPlanes},
  {"patch_dense.weight", "v.patch_embd.weight", P::kVision, kUnified, kOnce, v_patch, nullptr, K::kFloat, G::kPlanes},
  {"patch_dense.bias", "v.patch_embd.bias", P::kVision, kUnified, kOnce, v_dim, nullptr, K::kFloat, G::kNone},
  {"patch_ln2.weight", "v.patch_norm.2.weight", P::kVision, kUnified, kOnce, v_dim, nullptr, K::kFloat, G::kNone},
  {"patch_ln2.bias", "v.patch_norm.2.bias", P::kVision, kUnified, kOnce, v_dim, nullptr, K::kFloat, G::kNone},
  {"pos_norm.weight", "v.patch_norm.3.weight", P::kVision, kUnified, kOnce, v_dim, nullptr, K::kFloat, G::kNone},
  {"pos_norm.bias", "v.patch_norm.3.bias", P::kVision, kUnified, kOnce, v_dim, nullptr, K::kFloat, G::kNone},
  {"pos_embedding", "v.position_embd.weight", P::kVision, kUnified, kOnce, v_positions_pairs, v_positions, K::kFloat, G::kSwapAxes},
  {"embedding_projection.weight", "mm.input_projection.weight", P::kVisionEmbed, kUnified, kOnce, v_embed, nullptr, K::kMatrix, G::kNone},

  // Audio with an encoder.
  {"subsample_conv_projection.layer0.conv.weight", "a.conv1d.0.weight", P::kAudio, kEncoder, kOnce, a_conv0, nullptr, K::kFloat, G::kNone},
  {"subsample_conv_projection.layer0.norm.weight", "a.conv1d.0.norm.weight", P::kAudio, kEncoder, kOnce, a_norm0, nullptr, K::kFloat, G::kNone},
  {"subsample_conv_projection.layer1.conv.weight", "a.conv1d.1.weight", P::kAudio, kEncoder, kOnce, a_conv1, nullptr, K::kFloat, G::kNone},
  {"subsample_conv_projection.layer1.norm.weight", "a.conv1d.1.norm.weight", P::kAudio, kEncoder, kOnce, a_norm1, nullptr, K::kFloat, G::kNone},
  {"subsample_conv_projection.input_proj_linear.weight", "a.input_projection.weight", P::kAudio, kEncoder, kOnce, a_in, nullptr, K::kFloat, G::kNone},
  {"layers.N.feed_forward1.pre_layer_norm.weight", "a.blk.N.ffn_norm.weight", P::kAudio, kEncoder, kLayer, a_dim, nullptr, K::kFloat, G::kNone},
  {"layers.N.feed_forward1.ffw_layer_1.linear.weight", "a.blk.N.ffn_up.weight", P::kAudio, kEncoder, kLayer, a_up, nullptr, K::kLinear, G::kNone},
  {"layers.N.feed_forward1.ffw_layer_2.linear.weight", "a.blk.N.ffn_down.weight", P::kAudio, kEncoder, kLayer, a_down, nullptr, K::kLinear, G::kNone},
  {"layers.N.feed_forward1.post_layer_norm.weight", "a.blk.N.ffn_post_norm.weight", P::kAudio, kEncoder, kLayer, a_dim, nullptr, K::kFloat, G::kNone},
  {"layers.N.norm_pre_attn.weight", "a.blk.N.attn_pre_norm.weight", P::kAudio, kEncoder, kLayer, a_dim, nullptr, K::kFloat, G::kNone},
  {"layers.N.self_attn.q_proj.linear.weight", "a.blk.N.attn_q.weight", P::kAudio, kEncoder, kLayer, a_square, nullptr, K::kLinear, G::kNone},
  {"layers.N.self_attn.k_proj.linear.weight", "a.blk.N.attn_k.weight", P::kAudio, kEncoder, kLayer, a_square, nullptr, K::kLinear, G::kNone},
  {"layers.N.self_attn.v_proj.linear.weight", "a.blk.N.attn_v.weight", P::kAudio, kEncoder, kLayer, a_square, nullptr, K::kLinear, G::kNone},
  {"layers.N.self_attn.post.linear.weight", "a.blk.N.attn_out.weight", P::kAudio, kEncoder, kLayer, a_square, nullptr, K::kLinear, G::kNone},
  {"layers.N.self_attn.relative_k_proj.weight", "a.blk.N.attn_k_rel.weight", P::kAudio, kEncoder, kLayer, a_square, nullptr, K::kMatrix, G::kNone},
  {"layers.N.self_attn.per_dim_scale", "a.blk.N.per_dim_scale.weight", P::kAudio, kEncoder, kLayer, a_head, nullptr, K::kFloat, G::kSoftplus},
  {"layers.N.norm_post_attn.weight", "a.blk.N.attn_post_norm.weight", P::kAudio, kEncoder, kLayer, a_dim, nullptr, K::kFloat, G::kNone},
  // The two norms have each other's name there; llama.cpp's loader knows.
  {"layers.N.lconv1d.pre_layer_norm.weight", "a.blk.N.conv_norm.weight", P::kAudio, kEncoder, kLayer, a_dim, nullptr, K::kFloat, G::kNone},
  {"layers.N.lconv1d.linear_start.linear.weight", "a.blk.N.conv_pw1.weight", P::kAudio, kEncoder, kLayer, a_start, nullptr, K::kLinear, G::kNone},
  {"layers.N.lconv1d.depthwise_conv1d.weight", "a.blk.N.conv_dw.weight", P::kAudio, kEncoder, kLayer, a_depthwise, a_depthwise_flat, K::kFloat, G::kNone},
  {"layers.N.lconv1d.conv_norm.weight", "a.blk.N.norm_conv.weight", P::kAudio, kEncoder, kLayer, a_dim, nullptr, K::kFloat, G::kNone},
  {"layers.N.lconv1d.linear_end.linear.weight", "a.blk.N.conv_pw2.weight", P::kAudio, kEncoder, kLayer, a_square, nullptr, K::kLinear, G::kNone},
  {"layers.N.feed_forward2.pre_layer_norm.weight", "a.blk.N.ffn_norm_1.weight", P::kAudio, kEncoder, kLayer, a_dim, nullptr, K::kFloat, G::kNone},
  {"layers.N.feed_forward2.ffw_layer_1.linear.weight", "a.blk.N.ffn_up_1.weight", P::kAudio, kEncoder, kLayer, a_up, nullptr, K::kLinear, G::kNone},
  {"layers.N.feed_forward2.ffw_layer_2.linear.weight", "a.blk.N.ffn_down_1.weight", P::kAudio, kEncoder, kLayer, a_down, nullptr, K::kLinear, G::kNone},
  {"layers.N.feed_forward2.post_layer_norm.weight", "a.blk.N.ffn_post_norm_1.weight", P::kAudio, kEncoder, kLayer, a_dim, nullptr, K::kFloat, G::kNone},
  {"layers.N.norm_out.weight", "a.blk.N.ln2.weight", P::kAudio, kEncoder, kLayer, a_dim, nullptr, K::kFloat, G::kNone},
  {"output_proj.weight", "a.pre_encode.out.weight", P::kAudio, kEncoder, kOnce, a_output, nullptr, K::kMatrix, G::kNone},
  {"output_proj.bias", "a.pre_encode.out.bias", P::kAudio, kEncoder, kOnce, a_output_bias, nullptr, K::kFloat, G::kNone},
  {"embedding_projection.weight", "mm.a.input_projection.weight", P::kAudioEmbed, kEncoder, kOnce, a_embed, nullptr, K::kMatrix, G::kNone},

  // Audio without.
  {"embedding_projection.weight", "mm.a.input_projection.weight", P::kAudioEmbed, kUnified, kOnce, a_embed, nullptr, K::kMatrix, G::kNone},
};
// clang-format on

bool is_vision(const R& row) { return row.part == P::kVision || row.part == P::kVisionEmbed; }

const char* hf_prefix(const R& row) {
  switch (row.part) {
    case P::kVision:
      return row.unified ? "model.vision_embedder." : "model.vision_tower.";
    case P::kAudio:
      return "model.audio_tower.";
    case P::kVisionEmbed:
      return "model.embed_vision.";
    case P::kAudioEmbed:
      return "model.embed_audio.";
  }
  CHECK(false);
}

constexpr const char* kClipNames[] = {"", "input_min", "input_max", "output_min", "output_max"};

// The bounds stand beside the matrix, not under its last part.
std::string with_clip(std::string name, std::string_view matrix, TowerClip clip) {
  if (clip == TowerClip::kNone) return name;
  CHECK(name.ends_with(matrix));
  name.resize(name.size() - matrix.size());
  return name + kClipNames[static_cast<size_t>(clip)];
}

bool is_present(const TowersConfig& c, const R& row) {
  if (is_vision(row)) {
    if (!c.vision || c.vision->unified != row.unified) return false;
    return row.kind != K::kStandard || c.vision->standardized;
  }
  return c.audio && c.audio->unified == row.unified;
}

bool is_clipped(const TowersConfig& c, const R& row) {
  if (row.kind != K::kLinear) return false;
  return is_vision(row) ? c.vision->clipped : c.audio->clipped;
}

}  // namespace

std::span<const TowerRow> tower_table() { return kTable; }

std::vector<TowerTensor> tower_tensors(const TowersConfig& config) {
  std::vector<TowerTensor> tensors;
  const auto add = [&](const R& row, int64_t layer) {
    tensors.push_back({&row, layer, TowerClip::kNone});
    if (!is_clipped(config, row)) return;
    for (const TowerClip clip : {TowerClip::kInputMin, TowerClip::kInputMax, TowerClip::kOutputMin,
                                 TowerClip::kOutputMax}) {
      tensors.push_back({&row, layer, clip});
    }
  };
  const std::span<const R> table = kTable;
  for (size_t i = 0; i < table.size();) {
    if (!is_present(config, table[i])) {
      ++i;
      continue;
    }
    if (!table[i].per_layer) {
      add(table[i++], -1);
      continue;
    }
    size_t end = i;
    while (end < table.size() && table[end].per_layer && table[end].part == table[i].part) ++end;
    const int64_t n = is_vision(table[i]) ? config.vision->n_layers : config.audio->n_layers;
    for (int64_t layer = 0; layer < n; ++layer) {
      for (size_t r = i; r < end; ++r) add(table[r], layer);
    }
    i = end;
  }
  return tensors;
}

std::string tower_hf_name(const TowerTensor& t) {
  return with_clip(hf_prefix(*t.row) + with_layer(t.row->hf, t.layer), "linear.weight", t.clip);
}

std::string tower_gguf_name(const TowerTensor& t) {
  return with_clip(with_layer(t.row->gguf, t.layer), "weight", t.clip);
}

Shape tower_hf_shape(const TowersConfig& config, const TowerTensor& t) {
  return t.clip == TowerClip::kNone ? t.row->hf_shape(config) : Shape{};
}

Shape tower_gguf_shape(const TowersConfig& config, const TowerTensor& t) {
  if (t.clip != TowerClip::kNone) return {1};
  return t.row->gguf_shape ? t.row->gguf_shape(config) : t.row->hf_shape(config);
}

DType tower_gguf_type(const TowerTensor& t) {
  const bool matrix = t.row->kind == K::kLinear || t.row->kind == K::kMatrix;
  return matrix && t.clip == TowerClip::kNone ? DType::kBF16 : DType::kF32;
}

std::vector<int32_t> planes_permutation(int64_t side) {
  std::vector<int32_t> source;
  source.reserve(static_cast<size_t>(kColours * side * side));
  for (int64_t colour = 0; colour < kColours; ++colour) {
    for (int64_t row = 0; row < side; ++row) {
      for (int64_t column = 0; column < side; ++column) {
        source.push_back(static_cast<int32_t>((row * side + column) * kColours + colour));
      }
    }
  }
  return source;
}

}  // namespace carat::model
