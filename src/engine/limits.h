// How long a sequence may get: the context, or what memory allows.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/kv_pages.h"
#include "model/config.h"

namespace carat::engine {

constexpr int64_t kMaxChunk = 1 << 16;  // most tokens in one forward pass

struct ContextLimits {
  int64_t context = 0;    // most tokens of a sequence
  int64_t kv_budget = 0;  // bytes of keys and values
  int64_t chunk = 0;      // most tokens of a sequence in one step
  int64_t capacity = 0;   // most tokens that fit both
};

// `context` 0: as many tokens as the model was trained for; more than that is an Error. `kv_budget`
// 0: what a sequence of the whole context needs. Throws Error for values out of range.
ContextLimits context_limits(const model::Config& config, kernels::KvType kv, int64_t context,
                             int64_t kv_budget, int64_t chunk);

// Throws Error unless `n_tokens` fit, saying whether context or memory is too short.
void require_room(const model::Config& config, kernels::KvType kv, const ContextLimits& limits,
                  int64_t n_tokens);

// Throws Error unless every token is in the vocabulary.
void require_vocabulary(const model::Config& config, std::span<const int32_t> tokens);

}  // namespace carat::engine
