// Where greedy answers of candidates leave those of a reference.
//
// The beginning of a chunk (Chunk::prompt tokens) is a prompt; every model continues it with its
// most likely token, each after its own. What two answers have in common before they differ shows
// how long a reader would not notice which model is speaking.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "audit/audit.h"
#include "audit/report.h"

namespace carat::audit {

struct GreedyOptions {
  int64_t tokens = 64;   // of an answer at most
  int64_t prompts = 32;  // chunks, drawn by the seed; fewer if there are fewer
  uint64_t seed = 1;
  std::vector<int32_t> stop_ids;  // an answer ends with one of them, ascending
};

// One for each pair, in the order of AuditResult::pairs; prompts in the order of the text. Answers
// of `hooks.state` are not generated again. hooks.progress counts answers. Throws Error if a
// reference or candidate cannot continue texts.
[[nodiscard]] std::vector<GreedyDivergence> run_greedy(const AuditModels& models,
                                                       std::span<const Chunk> chunks,
                                                       const GreedyOptions& options,
                                                       const AuditHooks& hooks = {});

// Tokens that two answers have in common; `limit` if they are equal.
[[nodiscard]] int64_t common_tokens(std::span<const int32_t> a, std::span<const int32_t> b,
                                    int64_t limit);

}  // namespace carat::audit
