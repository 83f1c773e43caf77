// The timed runs of `carat bench`.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "engine/scheduler.h"
#include "engine/session.h"

namespace carat::app {

struct BenchPlan {
  int64_t prefill = 512, decode = 32;  // tokens; 0: not timed
  int64_t depth = 0;                   // tokens of context before either
  int64_t repeat = 1;
  bool all_logits = false;  // prefill computes the logits of every token

  // Tokens that a sequence must hold.
  int64_t room() const;
  // The middle of the positions at which decode runs.
  int64_t decode_position() const;
};

struct BenchTimes {
  std::vector<double> prefill, decode;  // seconds, one per repetition; empty: not asked for
};

// Ids that repeat from run to run, each `stream` its own.
[[nodiscard]] std::vector<int32_t> bench_tokens(int64_t vocab_size, int64_t n, uint64_t stream = 1);

// Brings the weights into memory and the threads up to speed, then times. Each prefill begins at
// plan.depth; so does decode, which with repetitions goes on from where the one before ended,
// rather than reading the context again. Decode takes the likeliest token: choosing it is part of
// the time. Throws Error if the sequence has no room, Interrupted if *stop is set.
[[nodiscard]] BenchTimes run_bench(engine::Session& session, const BenchPlan& plan,
                                   const std::atomic<bool>* stop);

// `sequences` prompts of plan.prefill tokens, all different and read in one step, each continued by
// plan.decode tokens together; depth and all_logits do not count. Throws UsageError if the prompts
// are more than one step can read, and Error if `kv_budget` has no room for all sequences at once.
// `kv_bytes`: most bytes of keys and values that were in use.
[[nodiscard]] BenchTimes run_batch_bench(const model::Model& model, kernels::Ops& ops,
                                         kernels::KvType kv, int64_t kv_budget,
                                         const BenchPlan& plan, int64_t sequences,
                                         const std::atomic<bool>* stop, int64_t* kv_bytes);

[[nodiscard]] double median(std::vector<double> values);  // REQUIRES: not empty

}  // namespace carat::app
