#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

#include "engine/scheduler.h"

namespace carat::engine {

DecodeBatch decode_batch(Scheduler& scheduler, std::span<const std::vector<int32_t>> prompts,
                         int64_t n_tokens, const std::atomic<bool>* stop) {
  using Clock = std::chrono::steady_clock;
  CHECK(n_tokens >= 1);
  size_t begun = 0, ended = 0;
  std::optional<Error> failed;
  DecodeBatch result;
  std::vector<RequestId> ids;
  for (const std::vector<int32_t>& prompt : prompts) {
    Request r;
    r.tokens = prompt;
    r.max_tokens = n_tokens;
    r.sampling.temperature = 0;
    r.on_token = [&](const SampledToken& token) {
      if (token.index == 0) ++begun;
      return true;
    };
    r.on_end = [&](const GenerateResult&) { ++ended; };
    r.on_error = [&](const Error& error) { failed = error; };
    ids.push_back(scheduler.submit(std::move(r)));
  }
  // Ends what is under way before the hooks' variables go.
  const auto give_up = [&] {
    for (const RequestId id : ids) scheduler.cancel(id);
    scheduler.step();
  };
  const auto run_until = [&](const size_t& count) {
    const auto start = Clock::now();
    while (count < prompts.size() && !failed) {
      if (stop != nullptr && stop->load(std::memory_order_relaxed)) {
        give_up();
        throw Interrupted();
      }
      CHECK(scheduler.step());
    }
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  result.prefill_seconds = run_until(begun);
  const SchedulerStats before = scheduler.stats();
  result.decode_seconds = run_until(ended);
  if (failed) {
    give_up();
    throw *failed;
  }
  const SchedulerStats after = scheduler.stats();
  result.decode_steps = after.steps - before.steps;
  result.decoded_tokens = after.tokens_sampled - before.tokens_sampled;
  return result;
}

}  // namespace carat::engine
