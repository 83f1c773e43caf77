// config.json of Hugging Face, in and out. A key that is absent has the default of transformers'
// configuration class.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "model/config.h"

namespace carat::model {
namespace {

constexpr int64_t kMaxInt = int64_t{1} << 40;  // validate() knows the real limits

constexpr const char* kModelTypes[] = {"gemma4", "gemma4_text", "gemma4_unified",
                                       "gemma4_unified_text"};

void require_model_type(const Json& j) {
  const std::string type = get_string(j, "model_type");
  for (const char* known : kModelTypes) {
    if (type == known) return;
  }
  const bool drafter = type.find("assistant") != std::string::npos;
  throw Error({"not a Gemma 4 language model", "", "model_type",
               fmt::format("one of {}", fmt::join(kModelTypes, ", ")), type,
               drafter ? "this is a drafter; open the model it belongs to"
                       : "carat runs only the Gemma 4 family"});
}

void refuse(const char* key, const std::string& expected, const std::string& got,
            const std::string& hint = "") {
  throw Error({"carat does not know this variant of Gemma 4", "", key, expected, got, hint});
}

void check_fixed_choices(const Json& j) {
  const std::string activation = get_string(j, "hidden_activation", "gelu_pytorch_tanh");
  if (activation != "gelu_pytorch_tanh") {
    refuse("hidden_activation", "gelu_pytorch_tanh", activation);
  }
  if (get_bool(j, "attention_bias", false)) refuse("attention_bias", "false", "true");
  const std::string bidirectional = get_string(j, "use_bidirectional_attention", "vision");
  if (bidirectional != "vision") {
    refuse("use_bidirectional_attention", "null or vision", bidirectional);
  }
}

std::vector<bool> layer_kinds(const Json& j, int64_t n_layers) {
  std::vector<bool> global(static_cast<size_t>(n_layers));
  const Json* types = find(j, "layer_types");
  if (types == nullptr) {
    for (int64_t i = 0; i < n_layers; ++i) {
      global[static_cast<size_t>(i)] = (i + 1) % 6 == 0 || i + 1 == n_layers;
    }
    return global;
  }
  if (!types->is_array() || static_cast<int64_t>(types->size()) != n_layers) {
    throw Error({"layer_types does not fit the model", "", "layer_types",
                 fmt::format("an array of {} names", n_layers),
                 types->is_array() ? fmt::format("{} entries", types->size()) : types->type_name(),
                 ""});
  }
  for (size_t i = 0; i < global.size(); ++i) {
    const Json& t = (*types)[i];
    const std::string name = t.is_string() ? t.get<std::string>() : t.type_name();
    if (name != "full_attention" && name != "sliding_attention") {
      refuse("layer_types", "sliding_attention or full_attention", name);
    }
    global[i] = name == "full_attention";
  }
  return global;
}

// Layer index from a key of per_layer_config.
int64_t layer_index(const std::string& key, int64_t n_layers) {
  int64_t i = -1;
  const char* end = key.data() + key.size();
  const auto [stop, error] = std::from_chars(key.data(), end, i);
  if (error != std::errc() || stop != end || i < 0 || i >= n_layers) {
    throw Error({"per_layer_config names a layer that does not exist", "", "per_layer_config",
                 fmt::format("0 to {}", n_layers - 1), key, ""});
  }
  return i;
}

// Head size and K/V heads of every layer, starting from the common ones.
struct Heads {
  std::vector<int64_t> head_dim, n_kv_heads;
};

void apply_overrides(const Json& overrides, Heads& heads) {
  if (!overrides.is_object()) {
    refuse("per_layer_config", "an object of layer numbers", overrides.type_name());
  }
  const auto n_layers = static_cast<int64_t>(heads.head_dim.size());
  for (const auto& [key, value] : overrides.items()) {
    const auto i = static_cast<size_t>(layer_index(key, n_layers));
    if (!value.is_object()) refuse("per_layer_config", "objects", value.type_name());
    for (const auto& [name, unused] : value.items()) {
      if (name != "head_dim" && name != "num_key_value_heads") {
        refuse("per_layer_config", "head_dim and num_key_value_heads", name);
      }
    }
    heads.head_dim[i] = get_int(value, "head_dim", 1, kMaxInt, heads.head_dim[i]);
    heads.n_kv_heads[i] = get_int(value, "num_key_value_heads", 1, kMaxInt, heads.n_kv_heads[i]);
  }
}

// The one value that all layers of a kind have; `otherwise` if there is no such layer.
int64_t common_value(const char* name, const std::vector<int64_t>& values,
                     const std::vector<bool>& is_global, bool kind, int64_t otherwise) {
  int64_t found = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    if (is_global[i] != kind) continue;
    if (found >= 0 && values[i] != found) {
      refuse(name, "the same in all layers of a kind", fmt::format("{} and {}", found, values[i]));
    }
    found = values[i];
  }
  return found < 0 ? otherwise : found;
}

void read_heads(const Json& j, Config& c) {
  const auto n = static_cast<size_t>(c.n_layers);
  const int64_t head_dim = get_int(j, "head_dim", 1, kMaxInt, 256);
  const int64_t n_kv_heads = get_int(j, "num_key_value_heads", 1, kMaxInt);
  Heads heads{std::vector<int64_t>(n, head_dim), std::vector<int64_t>(n, n_kv_heads)};
  if (const Json* overrides = find(j, "per_layer_config")) {
    apply_overrides(*overrides, heads);
  } else {
    const int64_t global_dim = get_int(j, "global_head_dim", 1, kMaxInt, 512);
    // transformers looks at the number for global layers only where K is V.
    const int64_t global_heads =
        c.k_eq_v ? get_int(j, "num_global_key_value_heads", 1, kMaxInt, n_kv_heads) : n_kv_heads;
    for (size_t i = 0; i < n; ++i) {
      if (!c.is_global[i]) continue;
      heads.head_dim[i] = global_dim;
      heads.n_kv_heads[i] = global_heads;
    }
  }
  c.head_dim_local = common_value("head_dim", heads.head_dim, c.is_global, false, head_dim);
  c.head_dim_global = common_value("head_dim", heads.head_dim, c.is_global, true, head_dim);
  c.n_kv_heads_local =
      common_value("num_key_value_heads", heads.n_kv_heads, c.is_global, false, n_kv_heads);
  c.n_kv_heads_global =
      common_value("num_key_value_heads", heads.n_kv_heads, c.is_global, true, n_kv_heads);
}

void read_rope(const Json& j, Config& c) {
  const Json* rope = find(j, "rope_parameters");
  if (rope == nullptr) return;
  if (const Json* local = find(*rope, "sliding_attention")) {
    const std::string type = get_string(*local, "rope_type", "default");
    if (type != "default") refuse("rope_parameters.sliding_attention.rope_type", "default", type);
    c.rope_theta_local = static_cast<float>(get_number(*local, "rope_theta", 1, 1e12, 1e4));
  }
  if (const Json* global = find(*rope, "full_attention")) {
    const std::string type = get_string(*global, "rope_type", "proportional");
    if (type != "proportional" && type != "default") {
      refuse("rope_parameters.full_attention.rope_type", "proportional or default", type);
    }
    c.rope_theta_global = static_cast<float>(get_number(*global, "rope_theta", 1, 1e12, 1e6));
    c.partial_rotary_factor =
        static_cast<float>(get_number(*global, "partial_rotary_factor", 0, 1, 1.0));
  }
}

}  // namespace

Config config_from_hf(const Json& config) {
  require_model_type(config);
  const Json* nested = find(config, "text_config");
  const Json& j = nested ? *nested : config;
  if (nested && find(j, "model_type")) require_model_type(j);
  check_fixed_choices(j);

  Config c;
  c.dim = get_int(j, "hidden_size", 1, kMaxInt);
  c.n_layers = get_int(j, "num_hidden_layers", 1, 4096);
  c.n_heads = get_int(j, "num_attention_heads", 1, kMaxInt);
  c.vocab_size = get_int(j, "vocab_size", 1, kMaxInt);
  c.max_seq_len = get_int(j, "max_position_embeddings", 1, kMaxInt, 131072);
  c.window = get_int(j, "sliding_window", 1, kMaxInt, 512);
  c.ffn_dim = get_int(j, "intermediate_size", 1, kMaxInt);
  c.double_wide_ffn = get_bool(j, "use_double_wide_mlp", false);
  c.k_eq_v = get_bool(j, "attention_k_eq_v", false);
  c.is_global = layer_kinds(j, c.n_layers);
  c.n_kv_shared_layers = get_int(j, "num_kv_shared_layers", 0, kMaxInt, 0);
  read_heads(j, c);

  c.ple_dim = get_int(j, "hidden_size_per_layer_input", 0, kMaxInt, 256);
  if (c.has_ple()) {
    c.ple_vocab_size = get_int(j, "vocab_size_per_layer_input", 1, kMaxInt, 262144);
  }
  if (get_bool(j, "enable_moe_block", false)) {
    c.n_experts = get_int(j, "num_experts", 1, kMaxInt);
    c.n_experts_active = get_int(j, "top_k_experts", 1, kMaxInt);
    c.expert_ffn_dim = get_int(j, "moe_intermediate_size", 1, kMaxInt);
  }
  // Beside text_config where that does not say it.
  c.tied_embeddings =
      get_bool(j, "tie_word_embeddings", get_bool(config, "tie_word_embeddings", true));
  c.norm_eps = static_cast<float>(get_number(j, "rms_norm_eps", 0, 1, 1e-6));
  c.final_softcap = static_cast<float>(get_number(j, "final_logit_softcapping", 0, 1e6, 0.0));
  read_rope(j, c);
  c.validate();
  return c;
}

Json config_to_hf(const Config& c, std::string_view dtype) {
  Json j;
  j["architectures"] = {"Gemma4ForCausalLM"};
  j["model_type"] = "gemma4_text";
  j["dtype"] = std::string(dtype);
  j["attention_bias"] = false;
  j["attention_dropout"] = 0.0;
  j["attention_k_eq_v"] = c.k_eq_v;
  j["bos_token_id"] = 2;
  j["eos_token_id"] = {1, 106};
  j["pad_token_id"] = 0;
  j["enable_moe_block"] = c.has_experts();
  j["final_logit_softcapping"] = c.final_softcap > 0 ? Json(c.final_softcap) : Json();
  j["global_head_dim"] = c.head_dim_global;
  j["head_dim"] = c.head_dim_local;
  j["hidden_activation"] = "gelu_pytorch_tanh";
  j["hidden_size"] = c.dim;
  j["hidden_size_per_layer_input"] = c.ple_dim;
  j["initializer_range"] = 0.02;
  j["intermediate_size"] = c.ffn_dim;
  j["layer_types"] = Json::array();
  for (const bool global : c.is_global) {
    j["layer_types"].push_back(global ? "full_attention" : "sliding_attention");
  }
  j["max_position_embeddings"] = c.max_seq_len;
  j["moe_intermediate_size"] = c.has_experts() ? Json(c.expert_ffn_dim) : Json();
  j["num_attention_heads"] = c.n_heads;
  j["num_experts"] = c.has_experts() ? Json(c.n_experts) : Json();
  // transformers reads the number only where K is V; where it differs without that, each global
  // layer says its own.
  const bool differs = !c.k_eq_v && c.n_kv_heads_global != c.n_kv_heads_local;
  j["num_global_key_value_heads"] = c.k_eq_v ? Json(c.n_kv_heads_global) : Json();
  j["num_hidden_layers"] = c.n_layers;
  j["num_key_value_heads"] = c.n_kv_heads_local;
  j["num_kv_shared_layers"] = c.n_kv_shared_layers;
  // As the shortest decimal of the float, not the digits of its double.
  j["rms_norm_eps"] = std::stod(fmt::format("{}", c.norm_eps));
  j["rope_parameters"]["full_attention"] = {{"partial_rotary_factor", c.partial_rotary_factor},
                                            {"rope_theta", c.rope_theta_global},
                                            {"rope_type", "proportional"}};
  j["rope_parameters"]["sliding_attention"] = {{"rope_theta", c.rope_theta_local},
                                               {"rope_type", "default"}};
  j["sliding_window"] = c.window;
  j["tie_word_embeddings"] = c.tied_embeddings;
  j["top_k_experts"] = c.has_experts() ? Json(c.n_experts_active) : Json();
  j["use_bidirectional_attention"] = nullptr;
  j["use_cache"] = true;
  j["use_double_wide_mlp"] = c.double_wide_ffn;
  for (int64_t i = 0; differs && i < c.n_layers; ++i) {
    const LayerConfig layer = c.layer(i);
    j["per_layer_config"][fmt::format("{}", i)] = {{"head_dim", layer.head_dim},
                                                   {"num_key_value_heads", layer.n_kv_heads}};
  }
  j["vocab_size"] = c.vocab_size;
  j["vocab_size_per_layer_input"] = c.has_ple() ? c.ple_vocab_size : c.vocab_size;
  return j;
}

}  // namespace carat::model
