// One sequence being read by a model: feeds tokens in chunks, hands out logits.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/limits.h"
#include "engine/prefix_cache.h"
#include "engine/restart_policy.h"
#include "kernels/ops.h"
#include "model/advance.h"
#include "model/kv_cache.h"
#include "model/load.h"

namespace carat::engine {

struct SessionOptions {
  kernels::KvType kv = kernels::KvType::kI8;
  // Most tokens of the sequence; 0: as many as the model was trained for. More than that is an
  // Error.
  int64_t context = 0;
  // Bytes that keys and values may take; 0: no limit but the context.
  int64_t kv_budget = 0;
  // Most tokens per forward pass while a prompt is read. The results do not depend on it.
  int64_t chunk = 512;
  // Most memory of the logits that read_all hands out at once (one row takes what it takes).
  int64_t logit_bytes = int64_t{64} << 20;
};

// (tokens read, tokens to read) of one call.
using ReadProgress = std::function<void(int64_t done, int64_t total)>;
// Logits of `n` consecutive positions, [n, vocab_size] row-major, the first one at `position`.
using LogitRows = std::function<void(int64_t position, int64_t n, std::span<const float> logits)>;

// Used by one thread at a time.
class Session {
 public:
  // `model` and `ops` outlive it. Throws Error if an option makes no sense for the model.
  Session(const model::Model& model, kernels::Ops& ops, const SessionOptions& options);

  // Tokens that fit: the context, or fewer if the budget allows only so many.
  int64_t capacity() const { return limits_.capacity; }
  int64_t length() const { return static_cast<int64_t>(history_.size()); }
  // What was read, in order.
  std::span<const int32_t> history() const { return history_; }
  int64_t kv_bytes_in_use() const { return pool_->bytes_in_use(); }
  int64_t kv_bytes_peak() const { return pool_->peak_bytes(); }  // most that were in use
  int64_t vocab_size() const { return model_.config().vocab_size; }

  // Throws Error unless `n_tokens` fit a sequence, saying whether context or memory is too short.
  // Nothing is read.
  void require_room(int64_t n_tokens) const;

  // Reads tokens after those already read; returns the logits after the last one, valid until the
  // next call. Checks ids and room first and throws Error before any work. Stops between chunks
  // with Interrupted when *stop is set; the chunks read so far stay read. REQUIRES: not empty.
  std::span<const float> read(std::span<const int32_t> tokens, const ReadProgress& progress = {},
                              const std::atomic<bool>* stop = nullptr);

  // As above with the logits after every token, handed out in order, a few rows at a time. Stops
  // between those too; tokens are then read whose logits were not handed out.
  void read_all(std::span<const int32_t> tokens, const LogitRows& rows,
                const ReadProgress& progress = {}, const std::atomic<bool>* stop = nullptr);

  // Goes back, or over, to the longest beginning of `tokens` that is in memory, at most all but the
  // last one, and returns its length: what is left to read. Beginnings stay in memory up to restart
  // points, at the turns of a prompt among others, until their memory is needed.
  // REQUIRES: not empty.
  int64_t start(std::span<const int32_t> tokens);

  // Forgets everything read.
  void clear();

 private:
  void make_room(int64_t n);
  kernels::Value run(std::span<const int32_t> tokens, model::Chunk::Wanted wanted);
  void check_tokens(std::span<const int32_t> tokens) const;

  const model::Model& model_;
  kernels::Ops& ops_;
  kernels::KvType kv_;
  int64_t logit_bytes_;
  ContextLimits limits_;
  std::shared_ptr<model::KvPagePool> pool_;
  model::KvSequence sequence_;
  RestartPolicy policy_;
  PrefixCache cache_;
  PrefixCache::Place place_;
  std::vector<int32_t> history_;
  std::vector<float> logits_;
};

}  // namespace carat::engine
