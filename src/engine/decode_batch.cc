#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "base/seconds.h"
#include "engine/scheduler.h"

namespace carat::engine {
namespace {

// What the hooks of the requests write.
struct Progress {
  size_t begun = 0, ended = 0;
  std::optional<Error> failed;
};

Request likeliest_tokens(const std::vector<int32_t>& prompt, int64_t n_tokens,
                         const std::shared_ptr<Progress>& progress) {
  Request r;
  r.tokens = prompt;
  r.max_tokens = n_tokens;
  r.sampling.temperature = 0;
  r.on_token = [progress](const SampledToken& token) {
    if (token.index == 0) ++progress->begun;
    return true;
  };
  r.on_end = [progress](const GenerateResult&) { ++progress->ended; };
  r.on_error = [progress](const Error& error) { progress->failed = error; };
  return r;
}

// Ends at its own end what is still under way.
class Batch {
 public:
  explicit Batch(Scheduler& scheduler) : scheduler_(scheduler) {}
  ~Batch() {
    if (ids_.empty()) return;
    try {
      for (const RequestId id : ids_) scheduler_.cancel(id);
      scheduler_.step();
    } catch (const std::exception&) {  // no memory: the next step does it
    }
  }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  void submit(Request request) {
    ids_.reserve(ids_.size() + 1);
    ids_.push_back(scheduler_.submit(std::move(request)));
  }
  void done() { ids_.clear(); }

 private:
  Scheduler& scheduler_;
  std::vector<RequestId> ids_;
};

}  // namespace

DecodeBatch decode_batch(Scheduler& scheduler, std::span<const std::vector<int32_t>> prompts,
                         int64_t n_tokens, const std::atomic<bool>* stop) {
  CHECK(n_tokens >= 1);
  const auto progress = std::make_shared<Progress>();
  Batch batch(scheduler);
  for (const std::vector<int32_t>& prompt : prompts) {
    batch.submit(likeliest_tokens(prompt, n_tokens, progress));
  }
  const auto run_until = [&](const size_t& count) {
    const auto start = std::chrono::steady_clock::now();
    while (count < prompts.size()) {
      if (stop != nullptr && stop->load(std::memory_order_relaxed)) throw Interrupted();
      CHECK(scheduler.step());
      if (progress->failed) throw *progress->failed;
    }
    return seconds_since(start);
  };
  DecodeBatch result;
  const SchedulerStats begin = scheduler.stats();
  result.prefill_seconds = run_until(progress->begun);
  const SchedulerStats before = scheduler.stats();
  result.decode_seconds = run_until(progress->ended);
  batch.done();
  const SchedulerStats after = scheduler.stats();
  result.decode_steps = after.steps - before.steps;
  result.decoded_tokens = after.tokens_sampled - before.tokens_sampled;
  result.preemptions = after.preemptions - begin.preemptions;
  return result;
}

}  // namespace carat::engine
