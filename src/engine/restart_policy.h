// Where restart points are worth their memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/kv_cache.h"
#include "model/load.h"

namespace carat::engine {

struct RestartPolicy {
  // Before this token, which begins a turn, the prompts of a conversation usually part: the next
  // one drops the thoughts of the answer that follows it. Negative: there is no such token.
  int32_t turn_id = -1;
  // Also at multiples of this; 0: never.
  int64_t every = 0;

  // Ascending positions of restart points in a prompt, each in (0, tokens.size()): before the first
  // and the last turns, at the multiples, and before the last token, so that the same prompt is
  // taken up whole.
  std::vector<int64_t> in_prompt(std::span<const int32_t> tokens) const;
};

// The model's own turn token; so many tokens between points that the local blocks they hold take no
// more memory than the global ones, and at least 1024.
RestartPolicy restart_policy(const model::Model& model, const model::KvLayout& layout);

}  // namespace carat::engine
