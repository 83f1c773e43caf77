// Gemma 4's text model as data. The config decides the architecture; tensors only have to agree.
//
// Facts that differ between layers are asked of the layer (`config.layer(i)`): there is no bare
// head_dim or n_kv_heads, because in Hugging Face files the bare name means the local layers and in
// GGUF the global ones.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace carat::io {
class GgufMetadata;
class TensorSource;
}  // namespace carat::io

namespace carat::model {

// What one layer is.
struct LayerConfig {
  bool is_global = false;
  int64_t window = 0;  // visible keys are (position - window, position]; 0: no limit
  int64_t head_dim = 0;
  int64_t n_kv_heads = 0;
  int64_t ffn_dim = 0;   // of the dense branch
  bool k_eq_v = false;   // V is the raw K projection
  int32_t kv_layer = 0;  // layer whose K and V this one reads; itself if it owns them
  bool owns_kv = true;
};

struct Config {
  int64_t dim = 0;  // residual width
  int64_t n_layers = 0;
  int64_t n_heads = 0;
  int64_t vocab_size = 0;
  int64_t max_seq_len = 0;
  int64_t window = 0;  // of local layers
  int64_t head_dim_local = 0, head_dim_global = 0;
  int64_t n_kv_heads_local = 0, n_kv_heads_global = 0;
  int64_t ffn_dim = 0;
  bool double_wide_ffn = false;    // layers that share KV have 2 * ffn_dim
  bool k_eq_v = false;             // in global layers
  std::vector<bool> is_global;     // [n_layers]
  int64_t n_kv_shared_layers = 0;  // the last layers, which reuse earlier K and V

  // The output matrix is the token embedding; mobile checkpoints have one of their own (lm_head).
  bool tied_embeddings = true;

  int64_t ple_dim = 0;  // width of the per-layer embeddings; 0: none
  int64_t ple_vocab_size = 0;

  int64_t n_experts = 0;  // 0: no mixture
  int64_t n_experts_active = 0;
  int64_t expert_ffn_dim = 0;

  float norm_eps = 1e-6f;
  float final_softcap = 30.0f;  // 0: none
  float rope_theta_local = 1e4f, rope_theta_global = 1e6f;
  float partial_rotary_factor = 0.25f;  // share of pairs that turn in global layers

  // REQUIRES: validated, 0 <= i < n_layers.
  LayerConfig layer(int64_t i) const;
  int64_t n_owners() const { return n_layers - n_kv_shared_layers; }  // layers [0, n) own K and V
  bool has_ple() const { return ple_dim > 0; }
  bool has_experts() const { return n_experts > 0; }
  // Pairs of a global head that turn; the others keep their values at every position.
  int64_t rotated_pairs_global() const;
  // E2B and E4B, told by their per-layer embeddings: they differ in the chat template too.
  bool is_small_family() const { return ple_dim > 0; }

  // Throws Error if a value is out of range or two of them disagree (every count is capped, so
  // that later arithmetic on them cannot overflow).
  void validate() const;

  bool operator==(const Config&) const = default;
};

// config.json of a Hugging Face checkpoint, flat form of June 2026 or the newer form with a
// per_layer_config; a multimodal checkpoint's text_config is found by itself. Errors name the key.
// Validated.
Config config_from_hf(const Json& config);

// The flat form, as a text-only checkpoint has it (architecture Gemma4ForCausalLM, model_type
// gemma4_text; its tensors are named without "language_model."). `dtype` is "bfloat16", "float32"
// or "float16".
Json config_to_hf(const Config& config, std::string_view dtype = "bfloat16");

// Config of a GGUF file. Three facts are in no metadata key and come from the tensors: the size of
// the vocabulary (rows of token_embd), whether global layers use K as V (no attn_v in any of them),
// and the share of pairs that turn in global layers (rope_freqs). Validated.
Config config_from_gguf(const io::GgufMetadata& metadata, const io::TensorSource& tensors);

// Divisors of the rotary frequencies of global layers as GGUF stores them: 1 for pairs that turn,
// 1e30 for those that do not. [head_dim_global / 2].
std::vector<float> rope_freqs(const Config& config);

// Named shapes, in any case: E2B, E4B, 12B, 26B-A4B, 31B, and tiny (E kind), tinykv (K=V kind),
// tinymoe (mixture). Throws Error listing the names.
Config config_of_size(std::string_view name);
std::vector<std::string> config_size_names();

}  // namespace carat::model
