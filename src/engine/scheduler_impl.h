// The inside of Scheduler: all of it belongs to the thread that steps, but for the inbox.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>

#include "engine/limits.h"
#include "engine/prefix_cache.h"
#include "engine/restart_policy.h"
#include "engine/scheduler.h"
#include "model/advance.h"

namespace carat::engine {

// A request on its way. It waits while it has no `kv`, and runs while it has.
struct Lane {
  Lane(RequestId i, Request r, int64_t vocab_size)
      : id(i),
        request(std::move(r)),
        tokens(request.tokens),
        sampler(request.sampling, vocab_size) {
    result.prompt_tokens = prompt_tokens();
  }

  using Clock = std::chrono::steady_clock;

  RequestId id;
  Request request;
  std::vector<int32_t> tokens;  // prompt and answer
  Sampler sampler;
  std::vector<int64_t> restart_at;  // in the prompt, ascending
  std::optional<model::KvSequence> kv;
  PrefixCache::Place place;
  GenerateResult result;
  bool was_preempted = false;
  std::optional<Clock::time_point> started, answering;

  int64_t prompt_tokens() const { return static_cast<int64_t>(request.tokens.size()); }
  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  int64_t unread() const { return length() - kv->length(); }
  bool goes_before(const Lane& other) const {
    return request.priority != other.request.priority ? request.priority > other.request.priority
                                                      : id < other.id;
  }
};

class Scheduler::Impl {
 public:
  Impl(const model::Model& model, kernels::Ops& ops, const SchedulerOptions& options);

  RequestId submit(Request request);
  void cancel(RequestId id);
  bool step();
  bool wait(std::chrono::milliseconds longest);
  void clear_prefixes();
  SchedulerStats stats() const;
  const ContextLimits& limits() const { return limits_; }

 private:
  using Lanes = std::vector<std::unique_ptr<Lane>>;  // in rank order
  struct Planned {
    Lane* lane;
    int64_t n;  // next tokens that it reads
  };

  // scheduler.cc
  void take_inbox();
  void execute(const std::vector<Planned>& plan);
  void fail_step(const std::vector<Planned>& plan, const Error& error);
  void keep_prefix(Lane& lane, int64_t from);
  void keep_restart_point(Lane& lane, int64_t position);
  void give_up_blocks(Lane& lane);
  void answer(Lane& lane, std::span<const float> logits);
  std::optional<StopReason> next_token(Lane& lane, std::span<const float> logits);
  void end(Lane& lane, StopReason reason);
  void fail(Lane& lane, const Error& error);
  std::unique_ptr<Lane> remove(Lane& lane);
  void publish_stats();

  // scheduler_plan.cc
  std::vector<Planned> plan();
  int64_t take_up_prefix(Lane& lane, int64_t least_gain);
  void count_reused(Lane& lane, int64_t n);
  void admit();
  bool fits(const Lane& lane) const;
  int64_t worst_bytes(const Lane& lane) const;
  int64_t promised_bytes(const Lane& lane) const;
  void plan_prefill(std::vector<Planned>& plan);
  bool gains_by_waiting(const Lane& lane, const std::vector<Planned>& plan) const;
  int64_t findable(const Lane& lane, int64_t from, int64_t to) const;
  bool make_room(Lane& lane, int64_t n, std::vector<Planned>& plan);
  void preempt(Lane& lane);
  static void insert(Lanes& lanes, std::unique_ptr<Lane> lane);

  const model::Model& model_;
  kernels::Ops& ops_;
  SchedulerOptions options_;
  ContextLimits limits_;
  RestartPolicy policy_;
  std::shared_ptr<model::KvPagePool> pool_;
  PrefixCache cache_;
  Lanes running_, waiting_;
  std::vector<float> logits_, filtered_;
  SchedulerStats counts_;

  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  // Guarded by mutex_.
  Lanes submitted_;
  std::vector<RequestId> cancelled_;
  RequestId last_id_ = 0;
  bool busy_ = false;  // something runs or waits
  SchedulerStats published_;
};

}  // namespace carat::engine
