// The config of a GGUF file: metadata keys "gemma4.*" and what only the tensors say.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "io/gguf_metadata.h"
#include "io/tensor_source.h"
#include "model/config.h"
#include "model/tensors.h"

namespace carat::model {
namespace {

constexpr int64_t kMaxInt = int64_t{1} << 31;  // validate() knows the real limits

std::string key(const char* name) { return std::string("gemma4.") + name; }

[[noreturn]] void refuse(const std::string& place, std::string expected, std::string got) {
  throw Error({"carat does not know this variant of Gemma 4", "", place, std::move(expected),
               std::move(got), ""});
}

void require_architecture(const io::GgufMetadata& m) {
  const std::string architecture(m.get_string("general.architecture"));
  if (architecture == "gemma4") return;
  const char* hint = "carat runs only the Gemma 4 family";
  if (architecture == "gemma4-assistant") hint = "this is a drafter; open the model it belongs to";
  if (architecture == "clip") hint = "this is an image and audio encoder; open the model beside it";
  throw Error(
      {"not a Gemma 4 language model", "", "general.architecture", "gemma4", architecture, hint});
}

// The value that all layers of a kind have; `otherwise` if there is no such layer.
int64_t common_value(const std::string& place, const std::vector<int64_t>& values,
                     const std::vector<bool>& is_global, bool kind, int64_t otherwise) {
  int64_t found = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    if (is_global[i] != kind) continue;
    if (found >= 0 && values[i] != found) {
      refuse(place, "one value for all layers of a kind",
             fmt::format("{} and {}", found, values[i]));
    }
    found = values[i];
  }
  return found < 0 ? otherwise : found;
}

void read_feed_forward(const io::GgufMetadata& m, Config& c) {
  const std::string k = key("feed_forward_length");
  const std::vector<int64_t> widths = m.get_int_per_layer(k, c.n_layers, 1, kMaxInt);
  c.ffn_dim = widths.front();
  c.double_wide_ffn = c.n_kv_shared_layers > 0 && widths.back() == 2 * c.ffn_dim;
  for (int64_t i = 0; i < c.n_layers; ++i) {
    const bool wide = c.double_wide_ffn && i >= c.n_owners();
    const int64_t expected = wide ? 2 * c.ffn_dim : c.ffn_dim;
    if (widths[static_cast<size_t>(i)] != expected) {
      refuse(fmt::format("{}, layer {}", k, i), fmt::format("{}", expected),
             fmt::format("{}", widths[static_cast<size_t>(i)]));
    }
  }
}

void read_attention(const io::GgufMetadata& m, Config& c) {
  const std::string heads = key("attention.head_count");
  const std::vector<int64_t> n_heads = m.get_int_per_layer(heads, c.n_layers, 1, kMaxInt);
  c.n_heads = n_heads.front();
  if (std::count(n_heads.begin(), n_heads.end(), c.n_heads) != c.n_layers) {
    refuse(heads, "the same in all layers", "different values");
  }
  const std::string kv = key("attention.head_count_kv");
  const std::vector<int64_t> n_kv = m.get_int_per_layer(kv, c.n_layers, 1, kMaxInt);
  c.n_kv_heads_local = common_value(kv, n_kv, c.is_global, false, n_kv.front());
  c.n_kv_heads_global = common_value(kv, n_kv, c.is_global, true, n_kv.front());
  c.head_dim_global = m.get_int(key("attention.key_length"), 1, kMaxInt);
  c.head_dim_local = m.get_int(key("attention.key_length_swa"), 1, kMaxInt, c.head_dim_global);
  const int64_t v_global = m.get_int(key("attention.value_length"), 1, kMaxInt, c.head_dim_global);
  const int64_t v_local =
      m.get_int(key("attention.value_length_swa"), 1, kMaxInt, c.head_dim_local);
  if (v_global != c.head_dim_global || v_local != c.head_dim_local) {
    refuse(key("attention.value_length"), "the key length",
           fmt::format("{} and {}", v_global, v_local));
  }
}

int64_t vocab_size(const io::TensorSource& tensors) {
  const std::string name = gguf_name({TensorKind::kTokenEmbedding});
  const io::TensorEntry* entry = tensors.find(name);
  if (entry == nullptr || entry->shape.size() != 2) {
    throw Error({"the token embedding is missing or not a matrix", "", name, "", "",
                 "the file is incomplete or holds another kind of model"});
  }
  return entry->shape[0];
}

// K is V in global layers if none of them has a V matrix. A file where only some have one is
// damaged; the binding says which tensor is missing.
bool global_layers_lack_v(const Config& c, const io::TensorSource& tensors) {
  for (int64_t i = 0; i < c.n_owners(); ++i) {
    if (!c.is_global[static_cast<size_t>(i)]) continue;
    if (tensors.find(gguf_name({TensorKind::kV, i})) != nullptr) return false;
  }
  return true;
}

float rotary_factor(const Config& c, const io::TensorSource& tensors) {
  const io::TensorEntry* entry = tensors.find(kRopeFreqsName);
  if (entry == nullptr) {
    throw Error({"a required tensor is missing", "", kRopeFreqsName,
                 fmt::format("F32 [{}]", c.head_dim_global / 2), "", ""});
  }
  const int64_t n = c.head_dim_global / 2;
  if (entry->dtype != DType::kF32 || entry->shape != Shape{n}) {
    throw Error({"a tensor has another type or shape than the configuration gives it", "",
                 kRopeFreqsName, fmt::format("F32 [{}]", n),
                 fmt::format("{} {}", carat::name_of(entry->dtype), to_string(entry->shape)), ""});
  }
  std::vector<float> divisors(static_cast<size_t>(n));
  std::memcpy(divisors.data(), tensors.view(*entry).data, divisors.size() * sizeof(float));
  const auto turning =
      std::find_if(divisors.begin(), divisors.end(), [](float f) { return f != 1.0f; });
  // A divisor of 1e30 leaves a pair where it is; nothing else is known to occur.
  if (!std::all_of(turning, divisors.end(), [](float f) { return f >= 1e20f; })) {
    refuse(kRopeFreqsName, "ones, then 1e30", "other divisors");
  }
  return static_cast<float>(turning - divisors.begin()) / static_cast<float>(n);
}

}  // namespace

Config config_from_gguf(const io::GgufMetadata& m, const io::TensorSource& tensors) {
  require_architecture(m);
  Config c;
  c.dim = m.get_int(key("embedding_length"), 1, kMaxInt);
  c.n_layers = m.get_int(key("block_count"), 1, 4096);
  c.max_seq_len = m.get_int(key("context_length"), 1, kMaxInt);
  c.window = m.get_int(key("attention.sliding_window"), 1, kMaxInt);
  c.n_kv_shared_layers = m.get_int(key("attention.shared_kv_layers"), 0, c.n_layers - 1, 0);
  c.is_global = m.get_bools(key("attention.sliding_window_pattern"), c.n_layers);
  c.is_global.flip();
  read_attention(m, c);
  read_feed_forward(m, c);
  c.vocab_size = vocab_size(tensors);
  c.tied_embeddings = tensors.find("output.weight") == nullptr;
  c.ple_dim = m.get_int(key("embedding_length_per_layer_input"), 0, kMaxInt, 0);
  if (c.has_ple()) c.ple_vocab_size = c.vocab_size;
  c.n_experts = m.get_int(key("expert_count"), 0, kMaxInt, 0);
  if (c.has_experts()) {
    c.n_experts_active = m.get_int(key("expert_used_count"), 1, kMaxInt);
    c.expert_ffn_dim = m.get_int(key("expert_feed_forward_length"), 1, kMaxInt);
  }
  c.norm_eps = static_cast<float>(m.get_number(key("attention.layer_norm_rms_epsilon"), 0, 1));
  c.final_softcap = static_cast<float>(m.get_number(key("final_logit_softcapping"), 0, 1e6, 0));
  c.rope_theta_global = static_cast<float>(m.get_number(key("rope.freq_base"), 1, 1e12, 1e6));
  c.rope_theta_local = static_cast<float>(m.get_number(key("rope.freq_base_swa"), 1, 1e12, 1e4));
  c.partial_rotary_factor = 1.0f;
  c.validate();
  c.k_eq_v = global_layers_lack_v(c, tensors);
  c.partial_rotary_factor = rotary_factor(c, tensors);
  c.validate();
  return c;
}

}  // namespace carat::model
