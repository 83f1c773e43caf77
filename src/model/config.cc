#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/kv_pages.h"

namespace carat::model {
namespace {

constexpr int64_t kMaxLayers = 512;
constexpr int64_t kMaxVocab = int64_t{1} << 22;
constexpr int64_t kMaxDim = int64_t{1} << 20;
constexpr int64_t kMaxSeqLen = int64_t{1} << 24;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxExperts = 4096;

[[noreturn]] void fail(const char* name, int64_t got, const std::string& expected) {
  throw Error({"the model's configuration is not usable", "", name, expected,
               fmt::format("{}", got), "the file is damaged or describes another kind of model"});
}

void require_range(const char* name, int64_t value, int64_t lo, int64_t hi) {
  if (value < lo || value > hi) fail(name, value, fmt::format("{} to {}", lo, hi));
}

void require_number(const char* name, float value, float lo, float hi) {
  if (value >= lo && value <= hi) return;  // false for NaN
  throw Error({"the model's configuration is not usable", "", name, fmt::format("{} to {}", lo, hi),
               fmt::format("{}", value), ""});
}

void require_head(const char* name, int64_t head_dim) {
  require_range(name, head_dim, 2, kernels::kMaxHeadDim);
  if (head_dim % 2 != 0) fail(name, head_dim, "an even number");
}

// Index of the last layer before `end` of the same kind, or -1.
int64_t last_of_kind(const Config& c, bool is_global, int64_t end) {
  for (int64_t i = end - 1; i >= 0; --i) {
    if (c.is_global[static_cast<size_t>(i)] == is_global) return i;
  }
  return -1;
}

void validate_layers(const Config& c) {
  if (static_cast<int64_t>(c.is_global.size()) != c.n_layers) {
    fail("layer types", static_cast<int64_t>(c.is_global.size()),
         fmt::format("one for each of the {} layers", c.n_layers));
  }
  if (!c.is_global.back()) {
    throw Error({"the last layer must be a global one", "", "layer types", "full attention",
                 "sliding attention", ""});
  }
  require_range("number of layers that share K and V", c.n_kv_shared_layers, 0, c.n_layers - 1);
  for (int64_t i = c.n_owners(); i < c.n_layers; ++i) {
    if (last_of_kind(c, c.is_global[static_cast<size_t>(i)], c.n_owners()) < 0) {
      throw Error({"a layer shares K and V but no earlier layer of its kind owns any", "",
                   fmt::format("layer {}", i), "", "", ""});
    }
  }
}

void validate_attention(const Config& c) {
  require_range("attention heads", c.n_heads, 1, kMaxHeads);
  require_head("head size of local layers", c.head_dim_local);
  require_head("head size of global layers", c.head_dim_global);
  require_range("K/V heads of local layers", c.n_kv_heads_local, 1, c.n_heads);
  require_range("K/V heads of global layers", c.n_kv_heads_global, 1, c.n_heads);
  const std::string divisor = fmt::format("a divisor of the {} attention heads", c.n_heads);
  if (c.n_heads % c.n_kv_heads_local != 0) {
    fail("K/V heads of local layers", c.n_kv_heads_local, divisor);
  }
  if (c.n_heads % c.n_kv_heads_global != 0) {
    fail("K/V heads of global layers", c.n_kv_heads_global, divisor);
  }
  require_range("width of all heads", c.n_heads * std::max(c.head_dim_local, c.head_dim_global), 2,
                kMaxDim);
  require_range("sliding window", c.window, 1, kMaxSeqLen);
}

}  // namespace

LayerConfig Config::layer(int64_t i) const {
  CHECK(i >= 0 && i < n_layers);
  LayerConfig l;
  l.is_global = is_global[static_cast<size_t>(i)];
  l.window = l.is_global ? 0 : window;
  l.head_dim = l.is_global ? head_dim_global : head_dim_local;
  l.n_kv_heads = l.is_global ? n_kv_heads_global : n_kv_heads_local;
  l.k_eq_v = l.is_global && k_eq_v;
  l.owns_kv = i < n_owners();
  l.kv_layer = static_cast<int32_t>(l.owns_kv ? i : last_of_kind(*this, l.is_global, n_owners()));
  l.ffn_dim = double_wide_ffn && !l.owns_kv ? 2 * ffn_dim : ffn_dim;
  return l;
}

int64_t Config::rotated_pairs_global() const {
  // The factor is a float: 5 of 12 pairs is stored as a little less, or more.
  return std::llround(static_cast<double>(partial_rotary_factor) *
                      static_cast<double>(head_dim_global) / 2);
}

void Config::validate() const {
  require_range("width of the residual stream", dim, 1, kMaxDim);
  require_range("number of layers", n_layers, 1, kMaxLayers);
  require_range("size of the vocabulary", vocab_size, 1, kMaxVocab);
  require_range("context length", max_seq_len, 1, kMaxSeqLen);
  validate_attention(*this);
  validate_layers(*this);
  require_range("feed-forward width", ffn_dim, 1, kMaxDim);

  require_range("width of the per-layer embeddings", ple_dim, 0, kMaxDim);
  if (has_ple()) {
    require_range("width of all per-layer embeddings", n_layers * ple_dim, 1, kMaxDim);
    if (ple_vocab_size != vocab_size) {
      fail("size of the per-layer vocabulary", ple_vocab_size,
           fmt::format("the {} entries of the vocabulary", vocab_size));
    }
  }

  require_range("number of experts", n_experts, 0, kMaxExperts);
  if (has_experts()) {
    require_range("active experts", n_experts_active, 1, n_experts);
    require_range("feed-forward width of an expert", expert_ffn_dim, 1, kMaxDim);
  }

  require_number("norm epsilon", norm_eps, 0.0f, 1.0f);
  require_number("final logit softcap", final_softcap, 0.0f, 1e6f);
  require_number("rope theta of local layers", rope_theta_local, 1.0f, 1e12f);
  require_number("rope theta of global layers", rope_theta_global, 1.0f, 1e12f);
  require_number("partial rotary factor", partial_rotary_factor, 0.0f, 1.0f);
}

std::vector<float> rope_freqs(const Config& config) {
  std::vector<float> f(static_cast<size_t>(config.head_dim_global / 2), 1e30f);
  std::fill_n(f.begin(), config.rotated_pairs_global(), 1.0f);
  return f;
}

}  // namespace carat::model
