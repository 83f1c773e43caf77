// Many sequences at once: continuous batching, shared prefixes, one memory budget.
//
// A step is one forward pass. It takes the next token of every running sequence and, in what
// remains of a fixed number of tokens, chunks of prompts, so that a long prompt never holds up the
// sequences that are being decoded for longer than one step. A prompt starts from the longest
// prefix that is in memory (prefix_cache.h).
//
// Memory. Blocks of running sequences, kept prefixes and restart points share one budget. If a step
// needs more, restart points leave, that of use longest ago first; then the last of the running
// sequences in rank gives its blocks back and is read again later. Rank is priority, then time of
// submission.
//
// The tokens of a request are those that it would get alone: logits are bit-identical whatever the
// other sequences, the chunks, reuse and interruptions, and each request has its own random
// numbers.
//
// Threads. submit, cancel, stats and wait may be called from any thread at any time, from hooks
// too; step, run and clear_prefixes from one thread at a time, not from hooks. Hooks run in step().
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "engine/generator.h"
#include "kernels/ops.h"
#include "model/load.h"

namespace carat::engine {

struct SchedulerOptions {
  kernels::KvType kv = kernels::KvType::kI8;
  // Most tokens of a sequence; 0: as many as the model was trained for.
  int64_t context = 0;
  // Bytes of all keys and values, those kept for later ones included. 0: what one sequence of the
  // whole context needs.
  int64_t kv_budget = 0;
  int64_t max_running = 32;  // sequences in a step
  int64_t max_waiting = 512;
  // Tokens of prompts in a step, beside one token of each sequence that is being decoded.
  int64_t prefill_tokens = 512;
  // Start a request only if the worst case of all running ones fits, so that none is interrupted.
  bool reserve = false;
  // Keep prefixes for later requests.
  bool keep_prefixes = true;
  int64_t restart_every = 0;  // tokens between restart points; 0: by the model's shape
};

// Called before each sampling: may change the logits of the next token ([vocab_size]; -inf excludes
// a token). `tokens`: prompt and answer so far.
using LogitFilter = std::function<void(std::span<float> logits, std::span<const int32_t> tokens)>;

struct SampledToken {
  int32_t id = 0;
  int64_t index = 0;              // in the answer
  std::span<const float> logits;  // the model's, before the filter; valid during the call
};

struct Request {
  std::vector<int32_t> tokens;  // the prompt, <bos> included
  int64_t max_tokens = -1;      // < 0: until the model stops or the context is full
  SamplingOptions sampling;
  std::vector<int32_t> stop_ids;
  int32_t priority = 0;  // higher goes first

  // Hooks, each may be empty. What the first three throw ends the request with on_error; the other
  // two must not throw. One of those is called at last, once.
  LogitFilter filter;
  ReadProgress on_prompt;  // (tokens of the prompt that are read or reused, its length)
  // A stop token is not reported. False ends the answer.
  std::function<bool(const SampledToken&)> on_token;
  std::function<void(const GenerateResult&)> on_end;
  std::function<void(const Error&)> on_error;
};

using RequestId = uint64_t;

struct SchedulerStats {
  int64_t steps = 0;
  int64_t requests_ended = 0;
  int64_t tokens_prefilled = 0;  // prompts, and what was read again
  int64_t tokens_reused = 0;     // taken from memory instead
  int64_t tokens_decoded = 0;    // read one by one
  int64_t tokens_sampled = 0;
  int64_t preemptions = 0;
  int64_t evictions = 0;  // of restart points
  // Now.
  int64_t running = 0, waiting = 0, restart_points = 0;
  int64_t kv_bytes = 0;       // in use
  int64_t kv_bytes_kept = 0;  // of those, only for later requests
  int64_t kv_bytes_budget = 0;
  int64_t kv_bytes_peak = 0;
};

class Scheduler {
 public:
  // `model` and `ops` outlive it; nothing else uses `ops` during a step. Throws Error if an option
  // makes no sense for the model.
  Scheduler(const model::Model& model, kernels::Ops& ops, const SchedulerOptions& options);
  // Requests that have not ended do not end; their hooks are not called.
  ~Scheduler();

  // Most tokens of a sequence: the context, or fewer if the budget allows only so many.
  int64_t capacity() const;

  // Throws Error for a request that could never run, and QueueFull if too many wait.
  RequestId submit(Request request);
  // Takes effect before the next step: the request ends with kCancelled. No effect once it ended.
  void cancel(RequestId id);

  // One forward pass. False if there was nothing to do. If it cannot be finished, because memory
  // ran out or the device failed, the requests that it was to read end with on_error (all that run,
  // if that was not decided yet); the others go on with the next step.
  bool step();
  // Steps until nothing is left to do or *stop is set.
  void run(const std::atomic<bool>* stop = nullptr);
  // Waits until there is something for step() to do, or for `longest`. True if there is.
  bool wait(std::chrono::milliseconds longest);

  // Forgets the prefixes kept for later requests.
  void clear_prefixes();

  SchedulerStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Too many requests wait; try again later.
class QueueFull : public Error {
 public:
  explicit QueueFull(int64_t waiting);
};

// How fast sequences are decoded together.
struct DecodeBatch {
  double prefill_seconds = 0;  // until each sequence has its first token
  double decode_seconds = 0;   // the steps after that
  int64_t decoded_tokens = 0;  // made in those steps, by all sequences together
  int64_t decode_steps = 0;    // n_tokens - 1, unless some sequence had to wait
  int64_t preemptions = 0;
};
// Reads all prompts, then continues each by `n_tokens` of the likeliest tokens, all in the same
// steps if the scheduler has room for all of them. REQUIRES: it is idle. Throws what a request ends
// with, QueueFull, and Interrupted if *stop is set; none of the requests is left then.
DecodeBatch decode_batch(Scheduler& scheduler, std::span<const std::vector<int32_t>> prompts,
                         int64_t n_tokens, const std::atomic<bool>* stop = nullptr);

}  // namespace carat::engine
