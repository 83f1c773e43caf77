#include "engine/limits.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "model/kv_cache.h"

namespace carat::engine {
ContextLimits context_limits(const model::Config& config, kernels::KvType kv, int64_t context,
                             int64_t kv_budget, int64_t chunk) {
  if (context < 0 || context > config.max_seq_len) {
    throw Error({"the context is longer than the model was trained for", "", "context",
                 fmt::format("1 to {} tokens", config.max_seq_len),
                 fmt::format("{} tokens", context), ""});
  }
  if (chunk < 1 || chunk > kMaxChunk) {
    throw Error({"the number of tokens in a chunk is out of range", "", "chunk",
                 fmt::format("1 to {}", kMaxChunk), fmt::format("{}", chunk), ""});
  }
  if (kv_budget < 0) throw Error("the memory for the context is negative");
  ContextLimits l;
  l.context = context == 0 ? config.max_seq_len : context;
  l.chunk = std::min(chunk, l.context);
  const int64_t whole = model::kv_bytes(config, kv, l.context, l.chunk);
  l.kv_budget = kv_budget == 0 ? whole : kv_budget;
  l.capacity = l.context;
  if (whole <= l.kv_budget) return l;
  int64_t fits = 0, too_many = l.context;
  while (too_many - fits > 1) {
    const int64_t middle = fits + (too_many - fits) / 2;
    (model::kv_bytes(config, kv, middle, l.chunk) <= l.kv_budget ? fits : too_many) = middle;
  }
  l.capacity = fits;
  return l;
}

void require_room(const model::Config& config, kernels::KvType kv, const ContextLimits& limits,
                  int64_t n_tokens) {
  if (n_tokens <= limits.capacity) return;
  if (n_tokens > limits.context) {
    throw Error({"the prompt is longer than the context", "", "prompt",
                 fmt::format("at most {} tokens", limits.context),
                 fmt::format("{} tokens", n_tokens),
                 limits.context < config.max_seq_len
                     ? fmt::format("the model takes up to {} tokens; allow a longer context",
                                   config.max_seq_len)
                     : "shorten the prompt"});
  }
  const int64_t need = model::kv_bytes(config, kv, n_tokens, limits.chunk);
  throw Error({"the prompt needs more memory than is allowed", "", "prompt",
               fmt::format("{:.1f} MB ({} tokens)", static_cast<double>(limits.kv_budget) / 1e6,
                           limits.capacity),
               fmt::format("{:.1f} MB ({} tokens)", static_cast<double>(need) / 1e6, n_tokens),
               "shorten the prompt, or keep keys and values in a smaller type"});
}

void require_vocabulary(const model::Config& config, std::span<const int32_t> tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < config.vocab_size) continue;
    throw Error({"no such token", "", fmt::format("token {}", i),
                 fmt::format("0 to {}", config.vocab_size - 1), fmt::format("{}", tokens[i]), ""});
  }
}

}  // namespace carat::engine
