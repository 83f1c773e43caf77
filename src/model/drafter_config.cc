// The drafters' configs: out of config.json, out of a GGUF file, and the published ones.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "model/drafter.h"

namespace carat::model {
namespace {

constexpr int64_t kMaxInt = int64_t{1} << 31;  // validate() knows the real limits
constexpr const char* kArchitecture = "gemma4-assistant";

// A drafter's text_config as that of a model with caches of its own, which Config describes.
Json with_own_caches(Json text) {
  text["num_kv_shared_layers"] = 0;
  text["hidden_size_per_layer_input"] = get_int(text, "hidden_size_per_layer_input", 0, kMaxInt, 0);
  return text;
}

std::string key(const char* name) { return std::string(kArchitecture) + "." + name; }

// The value of all layers of a kind; throws if they differ.
int64_t of_kind(const std::string& place, const std::vector<int64_t>& values,
                const std::vector<bool>& is_global, bool kind) {
  int64_t found = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    if (is_global[i] != kind) continue;
    if (found >= 0 && values[i] != found) {
      throw Error({"carat does not know this variant of Gemma 4", "", place,
                   "one value for all layers of a kind", "different values", ""});
    }
    found = values[i];
  }
  return found < 0 ? values.front() : found;
}

int64_t rows_of(const io::TensorSource& tensors, const char* name) {
  const io::TensorEntry* entry = tensors.find(name);
  if (entry != nullptr && entry->shape.size() == 2) return entry->shape[0];
  throw Error({"a required tensor is missing or not a matrix", "", std::string("tensor ") + name,
               "", "", "the file is incomplete"});
}

// Share of pairs that turn in global layers: rope_freqs holds ones for them, then 1e30.
float rotary_factor(const Config& c, const io::TensorSource& tensors) {
  const io::TensorEntry* entry = tensors.find(kRopeFreqsName);
  const int64_t n = c.head_dim_global / 2;
  if (entry == nullptr || entry->dtype != DType::kF32 || entry->shape != Shape{n}) {
    throw Error({"a required tensor is missing or has another type or shape", "",
                 std::string("tensor ") + kRopeFreqsName, fmt::format("F32 [{}]", n),
                 entry ? to_string(entry->shape) : "", ""});
  }
  std::vector<float> divisors(static_cast<size_t>(n));
  tensors.file_of(*entry).read(entry->offset, std::as_writable_bytes(std::span(divisors)));
  const auto turning =
      std::find_if(divisors.begin(), divisors.end(), [](float f) { return f != 1.0f; });
  return static_cast<float>(turning - divisors.begin()) / static_cast<float>(n);
}

}  // namespace

bool is_drafter(const Json& config) {
  if (!config.is_object()) return false;
  const Json* type = find(config, "model_type");
  return type != nullptr && type->is_string() &&
         (*type == "gemma4_assistant" || *type == "gemma4_unified_assistant");
}

bool is_drafter(const io::GgufMetadata& metadata) {
  return metadata.get_string("general.architecture", "") == kArchitecture;
}

DrafterConfig drafter_from_hf(const Json& config) {
  CHECK(is_drafter(config));
  DrafterConfig d;
  d.unified = get_string(config, "model_type") == "gemma4_unified_assistant";
  d.backbone_dim = get_int(config, "backbone_hidden_size", 1, kMaxInt, 1536);
  d.layers = config_from_hf(with_own_caches(get(config, "text_config")));
  if (get_bool(config, "use_ordered_embeddings", false)) {
    d.n_centroids = get_int(config, "num_centroids", 1, kMaxInt, 2048);
    d.n_active_centroids = get_int(config, "centroid_intermediate_top_k", 1, kMaxInt, 32);
  }
  d.validate();
  return d;
}

Json drafter_to_hf(const DrafterConfig& d) {
  Json text = config_to_hf(d.layers);
  text.erase("architectures");
  if (d.unified) text["model_type"] = "gemma4_unified_text";
  text["num_kv_shared_layers"] = d.layers.n_layers;
  text["vocab_size_per_layer_input"] = 0;
  Json j;
  j["architectures"] = {d.unified ? "Gemma4UnifiedAssistantForCausalLM"
                                  : "Gemma4AssistantForCausalLM"};
  j["model_type"] = d.unified ? "gemma4_unified_assistant" : "gemma4_assistant";
  j["dtype"] = "bfloat16";
  j["backbone_hidden_size"] = d.backbone_dim;
  j["use_ordered_embeddings"] = d.has_centroids();
  j["num_centroids"] = d.has_centroids() ? d.n_centroids : 2048;
  j["centroid_intermediate_top_k"] = d.has_centroids() ? d.n_active_centroids : 32;
  j["tie_word_embeddings"] = true;
  j["text_config"] = std::move(text);
  return j;
}

DrafterConfig drafter_from_gguf(const io::GgufMetadata& m, const io::TensorSource& tensors) {
  CHECK(is_drafter(m));
  DrafterConfig d;
  Config& c = d.layers;
  d.backbone_dim = m.get_int(key("embedding_length_out"), 1, kMaxInt);
  c.dim = m.get_int(key("embedding_length"), 1, kMaxInt);
  c.n_layers = m.get_int(key("block_count"), 1, 4096);
  c.max_seq_len = m.get_int(key("context_length"), 1, kMaxInt);
  c.window = m.get_int(key("attention.sliding_window"), 1, kMaxInt);
  c.is_global = m.get_bools(key("attention.sliding_window_pattern"), c.n_layers);
  c.is_global.flip();
  const auto n_heads = m.get_int_per_layer(key("attention.head_count"), c.n_layers, 1, kMaxInt);
  c.n_heads = n_heads.front();
  if (std::count(n_heads.begin(), n_heads.end(), c.n_heads) != c.n_layers) {
    throw Error({"carat does not know this variant of Gemma 4", "", key("attention.head_count"),
                 "the same in all layers", "different values", ""});
  }
  const std::string kv = key("attention.head_count_kv");
  const auto n_kv = m.get_int_per_layer(kv, c.n_layers, 1, kMaxInt);
  c.n_kv_heads_local = of_kind(kv, n_kv, c.is_global, false);
  c.n_kv_heads_global = of_kind(kv, n_kv, c.is_global, true);
  c.head_dim_global = m.get_int(key("attention.key_length"), 1, kMaxInt);
  c.head_dim_local = m.get_int(key("attention.key_length_swa"), 1, kMaxInt, c.head_dim_global);
  const std::string ffn = key("feed_forward_length");
  const auto widths = m.get_int_per_layer(ffn, c.n_layers, 1, kMaxInt);
  c.ffn_dim = widths.front();
  if (std::count(widths.begin(), widths.end(), c.ffn_dim) != c.n_layers) {
    throw Error({"carat does not know this variant of Gemma 4", "", ffn, "the same in all layers",
                 "different values", ""});
  }
  c.vocab_size = rows_of(tensors, "token_embd.weight");
  c.norm_eps = static_cast<float>(m.get_number(key("attention.layer_norm_rms_epsilon"), 0, 1));
  c.final_softcap = static_cast<float>(m.get_number(key("final_logit_softcapping"), 0, 1e6, 0));
  c.rope_theta_global = static_cast<float>(m.get_number(key("rope.freq_base"), 1, 1e12, 1e6));
  c.rope_theta_local = static_cast<float>(m.get_number(key("rope.freq_base_swa"), 1, 1e12, 1e4));
  c.k_eq_v = c.n_kv_heads_local != c.n_kv_heads_global;
  c.partial_rotary_factor = rotary_factor(c, tensors);
  d.unified = d.backbone_dim == 3840;
  if (tensors.find("masked_embd_centroids.weight") != nullptr) {
    d.n_centroids = rows_of(tensors, "masked_embd_centroids.weight");
    d.n_active_centroids = std::min<int64_t>(32, d.n_centroids);
  }
  d.validate();
  return d;
}

DrafterConfig drafter_of_size(std::string_view name) {
  const Config target = config_of_size(name);
  const bool small = target.has_ple();
  const bool test = target.dim < 1024;
  DrafterConfig d;
  d.backbone_dim = target.dim;
  d.unified = target.dim == 3840;
  Config& c = d.layers;
  c = target;
  c.n_layers = 4;
  c.is_global = {false, false, false, true};
  c.n_kv_shared_layers = 0;
  c.double_wide_ffn = false;
  c.ple_dim = c.ple_vocab_size = 0;
  c.n_experts = c.n_experts_active = c.expert_ffn_dim = 0;
  c.final_softcap = 0;
  if (test) {
    c.dim = 128;
    c.ffn_dim = 256;
  } else {
    c.dim = small ? 256 : 1024;
    c.ffn_dim = small ? 2048 : 8192;
    if (small) c.n_heads = 4;
  }
  if (small) {
    d.n_centroids = test ? 32 : 2048;
    d.n_active_centroids = test ? 4 : 32;
  }
  return d;
}

}  // namespace carat::model
