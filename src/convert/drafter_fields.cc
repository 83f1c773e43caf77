#include "convert/drafter_fields.h"

#include <vector>

#include "base/json.h"
#include "convert/gguf_fields.h"

namespace carat::convert {
namespace {

uint32_t u32(int64_t v) { return static_cast<uint32_t>(v); }
std::string key(const char* name) { return std::string("gemma4-assistant.") + name; }

}  // namespace

io::GgufFields drafter_fields(const model::DrafterConfig& config, const text::Vocab* vocab,
                              const std::string& name, const std::string& chat_template,
                              uint32_t file_type) {
  const model::Config& c = config.layers;
  std::vector<int32_t> kv_heads;
  std::vector<bool> local;
  for (int64_t i = 0; i < c.n_layers; ++i) {
    kv_heads.push_back(static_cast<int32_t>(c.layer(i).n_kv_heads));
    local.push_back(!c.layer(i).is_global);
  }
  io::GgufFields f;
  f.add_string("general.architecture", "gemma4-assistant");
  f.add_string("general.type", "model");
  f.add_string("general.name", name);
  f.add_u32("general.file_type", file_type);
  if (file_type == 2) f.add_u32("general.quantization_version", 2);
  f.add_u32(key("block_count"), u32(c.n_layers));
  f.add_u32(key("context_length"), u32(c.max_seq_len));
  f.add_u32(key("embedding_length"), u32(c.dim));
  f.add_u32(key("embedding_length_out"), u32(config.backbone_dim));
  f.add_u32(key("nextn_predict_layers"), u32(c.n_layers));
  f.add_u32(key("feed_forward_length"), u32(c.ffn_dim));
  f.add_u32(key("attention.head_count"), u32(c.n_heads));
  if (c.n_kv_heads_local == c.n_kv_heads_global) {
    f.add_u32(key("attention.head_count_kv"), u32(c.n_kv_heads_local));
  } else {
    f.add_i32s(key("attention.head_count_kv"), kv_heads);
  }
  f.add_f32(key("rope.freq_base"), c.rope_theta_global);
  f.add_f32(key("rope.freq_base_swa"), c.rope_theta_local);
  f.add_f32(key("attention.layer_norm_rms_epsilon"), c.norm_eps);
  f.add_u32(key("attention.key_length"), u32(c.head_dim_global));
  f.add_u32(key("attention.value_length"), u32(c.head_dim_global));
  f.add_u32(key("attention.key_length_swa"), u32(c.head_dim_local));
  f.add_u32(key("attention.value_length_swa"), u32(c.head_dim_local));
  f.add_u32(key("attention.sliding_window"), u32(c.window));
  f.add_u32(key("attention.shared_kv_layers"), u32(c.n_layers));
  f.add_u32(key("embedding_length_per_layer_input"), 0);
  f.add_bools(key("attention.sliding_window_pattern"), local);
  f.add_u32(key("rope.dimension_count"), u32(c.head_dim_global));
  f.add_u32(key("rope.dimension_count_swa"), u32(c.head_dim_local));
  if (vocab != nullptr) add_tokenizer_fields(f, *vocab, c.vocab_size, chat_template);
  return f;
}

}  // namespace carat::convert
