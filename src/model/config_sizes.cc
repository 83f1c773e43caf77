// The published shapes (formats.md 1.1) and three small ones with the same structure, one of each
// kind, for tests.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "model/config.h"

namespace carat::model {
namespace {

// Every `period`-th layer is global, the last one included.
std::vector<bool> pattern(int64_t n_layers, int64_t period) {
  std::vector<bool> global(static_cast<size_t>(n_layers));
  for (int64_t i = 0; i < n_layers; ++i) global[static_cast<size_t>(i)] = (i + 1) % period == 0;
  return global;
}

struct SmallShape {
  int64_t dim, ffn_dim, n_layers, period, n_kv_heads, n_shared;
  bool double_wide;
};

Config small_family(const SmallShape& s) {
  Config c;
  c.dim = s.dim;
  c.n_layers = s.n_layers;
  c.n_heads = 8;
  c.vocab_size = c.ple_vocab_size = 262144;
  c.max_seq_len = 131072;
  c.window = 512;
  c.head_dim_local = 256;
  c.head_dim_global = 512;
  c.n_kv_heads_local = c.n_kv_heads_global = s.n_kv_heads;
  c.ffn_dim = s.ffn_dim;
  c.double_wide_ffn = s.double_wide;
  c.is_global = pattern(s.n_layers, s.period);
  c.n_kv_shared_layers = s.n_shared;
  c.ple_dim = 256;
  return c;
}

struct LargeShape {
  int64_t dim, ffn_dim, n_layers, n_heads, n_kv_heads_local, n_kv_heads_global;
};

Config large_family(const LargeShape& s) {
  Config c;
  c.dim = s.dim;
  c.n_layers = s.n_layers;
  c.n_heads = s.n_heads;
  c.vocab_size = 262144;
  c.max_seq_len = 262144;
  c.window = 1024;
  c.head_dim_local = 256;
  c.head_dim_global = 512;
  c.n_kv_heads_local = s.n_kv_heads_local;
  c.n_kv_heads_global = s.n_kv_heads_global;
  c.ffn_dim = s.ffn_dim;
  c.k_eq_v = true;
  c.is_global = pattern(s.n_layers, 6);
  return c;
}

void set_experts(Config& c, int64_t n, int64_t active, int64_t ffn_dim) {
  c.n_experts = n;
  c.n_experts_active = active;
  c.expert_ffn_dim = ffn_dim;
}

// Widths are multiples of 256 where Q6_K applies (dim, ple_dim) and of 32 everywhere else.
Config tiny_base() {
  Config c;
  c.dim = 256;
  c.n_layers = 6;
  c.n_heads = 4;
  c.vocab_size = 512;
  c.max_seq_len = 4096;
  c.window = 16;
  c.head_dim_local = 32;
  c.head_dim_global = 64;
  c.ffn_dim = 256;
  c.is_global = pattern(6, 3);
  return c;
}

Config tiny() {
  Config c = tiny_base();
  c.n_kv_heads_local = c.n_kv_heads_global = 1;
  c.n_kv_shared_layers = 3;
  c.double_wide_ffn = true;
  c.ple_dim = 256;
  c.ple_vocab_size = c.vocab_size;
  return c;
}

Config tiny_large() {
  Config c = tiny_base();
  c.n_kv_heads_local = 2;
  c.n_kv_heads_global = 1;
  c.k_eq_v = true;
  return c;
}

struct Named {
  const char* name;
  Config (*make)();
};

constexpr Named kSizes[] = {
    {"E2B",
     [] {
       return small_family({1536, 6144, 35, 5, 1, 20, true});
     }},
    {"E4B",
     [] {
       return small_family({2560, 10240, 42, 6, 2, 18, false});
     }},
    {"12B",
     [] {
       return large_family({3840, 15360, 48, 16, 8, 1});
     }},
    {"26B-A4B",
     [] {
       Config c = large_family({2816, 2112, 30, 16, 8, 2});
       set_experts(c, 128, 8, 704);
       return c;
     }},
    {"31B",
     [] {
       return large_family({5376, 21504, 60, 32, 16, 4});
     }},
    {"tiny", tiny},
    {"tinykv", tiny_large},
    {"tinymoe",
     [] {
       Config c = tiny_large();
       c.ffn_dim = 128;
       set_experts(c, 16, 4, 64);
       return c;
     }},
};

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

}  // namespace

Config config_of_size(std::string_view name) {
  for (const Named& s : kSizes) {
    if (same_name(name, s.name)) return s.make();
  }
  const std::vector<std::string> names = config_size_names();
  throw Error({"no such model size", "", "", fmt::format("one of {}", fmt::join(names, ", ")),
               std::string(name), ""});
}

std::vector<std::string> config_size_names() {
  std::vector<std::string> names;
  for (const Named& s : kSizes) names.emplace_back(s.name);
  return names;
}

}  // namespace carat::model
