#include "convert/gguf_fields.h"

#include <fmt/format.h>

#include <vector>

#include "base/error.h"
#include "model/tensors.h"

namespace carat::convert {
namespace {

using io::GgufFields;
using model::Config;

std::string key(const char* name) { return std::string("gemma4.") + name; }
uint32_t u32(int64_t value) { return static_cast<uint32_t>(value); }

// Types without blocks: F32, F16, BF16.
bool is_quantized(uint32_t file_type) {
  return file_type != 0 && file_type != 1 && file_type != 32;
}

std::string size_label(const Config& config) {
  const auto n = static_cast<double>(model::parameter_count(config));
  if (n >= 1e9) return fmt::format("{:.1f}B", n / 1e9);
  return fmt::format("{:.1f}M", n / 1e6);
}

// One number if all layers agree, else one per layer.
void add_per_layer(GgufFields& f, const std::string& k, const std::vector<int32_t>& values) {
  for (const int32_t v : values) {
    if (v != values.front()) return f.add_i32s(k, values);
  }
  f.add_u32(k, static_cast<uint32_t>(values.front()));
}

void add_architecture(GgufFields& f, const Config& c) {
  std::vector<int32_t> ffn, kv_heads;
  std::vector<bool> local;
  for (int64_t i = 0; i < c.n_layers; ++i) {
    const model::LayerConfig layer = c.layer(i);
    ffn.push_back(static_cast<int32_t>(layer.ffn_dim));
    kv_heads.push_back(static_cast<int32_t>(layer.n_kv_heads));
    local.push_back(!layer.is_global);
  }
  f.add_u32(key("block_count"), u32(c.n_layers));
  f.add_u32(key("context_length"), u32(c.max_seq_len));
  f.add_u32(key("embedding_length"), u32(c.dim));
  add_per_layer(f, key("feed_forward_length"), ffn);
  f.add_u32(key("attention.head_count"), u32(c.n_heads));
  add_per_layer(f, key("attention.head_count_kv"), kv_heads);
  f.add_f32(key("rope.freq_base"), c.rope_theta_global);
  f.add_f32(key("rope.freq_base_swa"), c.rope_theta_local);
  f.add_f32(key("attention.layer_norm_rms_epsilon"), c.norm_eps);
  if (c.has_experts()) {
    f.add_u32(key("expert_count"), u32(c.n_experts));
    f.add_u32(key("expert_used_count"), u32(c.n_experts_active));
    f.add_u32(key("expert_feed_forward_length"), u32(c.expert_ffn_dim));
  }
  f.add_u32(key("attention.key_length"), u32(c.head_dim_global));
  f.add_u32(key("attention.value_length"), u32(c.head_dim_global));
  f.add_u32(key("attention.key_length_swa"), u32(c.head_dim_local));
  f.add_u32(key("attention.value_length_swa"), u32(c.head_dim_local));
  f.add_f32(key("final_logit_softcapping"), c.final_softcap);
  f.add_u32(key("attention.sliding_window"), u32(c.window));
  f.add_u32(key("attention.shared_kv_layers"), u32(c.n_kv_shared_layers));
  f.add_u32(key("embedding_length_per_layer_input"), u32(c.ple_dim));
  f.add_bools(key("attention.sliding_window_pattern"), local);
  f.add_u32(key("rope.dimension_count"), u32(c.head_dim_global));
  f.add_u32(key("rope.dimension_count_swa"), u32(c.head_dim_local));
}

void add_id(GgufFields& f, const char* k, int32_t id) {
  if (id >= 0) f.add_u32(k, static_cast<uint32_t>(id));
}

void add_tokenizer(GgufFields& f, const text::Vocab& v, int64_t rows) {
  std::vector<std::string> pads;
  std::vector<std::string_view> pieces;
  std::vector<int32_t> types;
  std::vector<float> scores = v.scores;
  for (int32_t id = v.size(); id < rows; ++id) pads.push_back(fmt::format("[PAD{}]", id));
  for (int32_t id = 0; id < v.size(); ++id) {
    const text::TokenType type = text::gguf_token_type(v, id);
    pieces.push_back(v.piece(id));
    types.push_back(static_cast<int32_t>(type));
    const bool special = type == text::TokenType::kControl || type == text::TokenType::kUserDefined;
    if (v.scores.empty()) scores.push_back(special ? -1000.0f : 0.0f);
  }
  for (const std::string& pad : pads) {
    pieces.push_back(pad);
    types.push_back(static_cast<int32_t>(text::TokenType::kUnused));
    scores.push_back(-1000.0f);
  }
  std::vector<std::string> merges;
  merges.reserve(v.merges.size());
  for (const text::Vocab::Merge& m : v.merges) {
    merges.push_back(std::string(v.piece(m.left)).append(" ").append(v.piece(m.right)));
  }
  f.add_string("tokenizer.ggml.model", "gemma4");
  f.add_strings("tokenizer.ggml.tokens", pieces);
  f.add_f32s("tokenizer.ggml.scores", scores);
  f.add_i32s("tokenizer.ggml.token_type", types);
  f.add_strings("tokenizer.ggml.merges", merges);
  add_id(f, "tokenizer.ggml.bos_token_id", v.special.bos);
  // A turn's end ends generation; <eos> and the others are known by their text.
  const bool chats = v.special.turn_end >= 0;
  add_id(f, "tokenizer.ggml.eos_token_id", chats ? v.special.turn_end : v.special.eos);
  add_id(f, "tokenizer.ggml.unknown_token_id", v.special.unk);
  add_id(f, "tokenizer.ggml.padding_token_id", v.special.pad);
  add_id(f, "tokenizer.ggml.mask_token_id", v.special.mask);
}

}  // namespace

void add_tokenizer_fields(GgufFields& f, const text::Vocab& vocab, int64_t rows,
                          const std::string& chat_template) {
  add_tokenizer(f, vocab, rows);
  if (!chat_template.empty()) f.add_string("tokenizer.chat_template", chat_template);
  f.add_bool("tokenizer.ggml.add_space_prefix", false);
  f.add_bool("tokenizer.ggml.add_bos_token", vocab.add_bos);
}

io::GgufFields gguf_fields(const GgufMetadataInput& input) {
  const Config& c = *input.config;
  GgufFields f;
  f.add_string("general.architecture", "gemma4");
  f.add_string("general.type", "model");
  if (input.generation != nullptr) {
    f.add_i32("general.sampling.top_k", static_cast<int32_t>(input.generation->top_k));
    f.add_f32("general.sampling.top_p", input.generation->top_p);
    f.add_f32("general.sampling.temp", input.generation->temperature);
  }
  f.add_string("general.name", input.name);
  f.add_string("general.size_label", size_label(c));
  f.add_u32("general.file_type", input.file_type);
  if (input.is_mixed || is_quantized(input.file_type)) f.add_u32("general.quantization_version", 2);
  add_architecture(f, c);
  if (input.vocab != nullptr) {
    add_tokenizer_fields(f, *input.vocab, c.vocab_size, input.chat_template);
    if (input.generation != nullptr && !input.generation->suppress_ids.empty()) {
      f.add_i32s("tokenizer.ggml.suppress_tokens", input.generation->suppress_ids);
    }
  }
  return f;
}

}  // namespace carat::convert
