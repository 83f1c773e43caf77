// One forward pass over sequences that have pages: what every caller that reads tokens runs.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops.h"
#include "model/kv_cache.h"
#include "model/weights.h"

namespace carat::model {

// The next tokens of one sequence.
struct Chunk {
  KvSequence* sequence = nullptr;
  std::span<const int32_t> tokens;  // each in [0, vocab_size)
  enum class Wanted : uint8_t { kNone, kLast, kAll };
  Wanted wanted = Wanted::kNone;  // rows whose logits are asked for
};

// Reads all chunks in one pass, each after the positions that its sequence stores, and moves the
// sequences on. Returns the wanted logits, [rows, vocab_size], chunk by chunk in ascending
// position. Throws Error if the pages do not fit their pool's budget; nothing is read then.
// REQUIRES: each sequence once, no chunk empty.
kernels::Value advance(const Weights& weights, kernels::Ops& ops, std::span<const Chunk> chunks);
// The same, but for the output matrix: [rows, dim]. Logits take much more memory than that;
// logits_of (forward.h) makes those of some rows.
kernels::Value advance_hidden(const Weights& weights, kernels::Ops& ops,
                              std::span<const Chunk> chunks);

}  // namespace carat::model
