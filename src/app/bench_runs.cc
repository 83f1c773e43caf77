#include "app/bench_runs.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <span>

#include "app/options.h"
#include "app/progress.h"
#include "base/error.h"
#include "base/rng.h"
#include "base/seconds.h"

namespace carat::app {
namespace {

using Clock = std::chrono::steady_clock;

class Runs {
 public:
  Runs(engine::Session& session, const BenchPlan& plan, const std::atomic<bool>* stop)
      : session_(session), plan_(plan), stop_(stop) {}

  void warm_up() {
    (void)session_.read(tokens(1), {}, stop_);
    session_.clear();
  }

  double prefill() {
    read_context();
    const std::vector<int32_t> ids = tokens(plan_.prefill);
    const auto begin = Clock::now();
    if (plan_.all_logits) {
      session_.read_all(
          ids, [](int64_t, int64_t, std::span<const float>) {}, {}, stop_);
    } else {
      (void)session_.read(ids, {}, stop_);
    }
    return seconds_since(begin);
  }

  double decode(bool go_on) {
    if (!go_on) read_context();
    int32_t token = tokens(1).front();
    const auto begin = Clock::now();
    for (int64_t i = 0; i < plan_.decode; ++i) {
      const std::span<const float> logits = session_.read(std::span(&token, 1), {}, stop_);
      token = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    }
    return seconds_since(begin);
  }

 private:
  std::vector<int32_t> tokens(int64_t n) const { return bench_tokens(session_.vocab_size(), n); }

  void read_context() {
    session_.clear();
    if (plan_.depth == 0) return;
    Progress progress("tokens of context");
    (void)session_.read(
        tokens(plan_.depth), [&](int64_t done, int64_t total) { progress.update(done, total); },
        stop_);
  }

  engine::Session& session_;
  const BenchPlan& plan_;
  const std::atomic<bool>* stop_;
};

// A speed is that of all sequences only if all were there in every step.
void require_together(const engine::DecodeBatch& batch, int64_t sequences, int64_t decoded,
                      const engine::SchedulerStats& stats) {
  if (batch.decode_steps == decoded && batch.decoded_tokens == sequences * decoded &&
      batch.preemptions == 0) {
    return;
  }
  throw Error(
      {"not enough memory for so many sequences", "", "--sequences",
       fmt::format("keys and values of {} sequences within {:.1f} MB", sequences,
                   static_cast<double>(stats.kv_bytes_budget) / 1e6),
       fmt::format("{} steps for {} tokens of each", batch.decode_steps, decoded),
       "ask for fewer sequences or shorter ones, or keep keys and values in a smaller type"});
}

}  // namespace

int64_t BenchPlan::room() const { return depth + std::max(prefill, decode * repeat); }

int64_t BenchPlan::decode_position() const { return depth + decode * repeat / 2; }

std::vector<int32_t> bench_tokens(int64_t vocab_size, int64_t n, uint64_t stream) {
  Rng rng(stream);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab_size))));
  }
  return tokens;
}

BenchTimes run_bench(engine::Session& session, const BenchPlan& plan,
                     const std::atomic<bool>* stop) {
  session.require_room(plan.room());
  Runs runs(session, plan, stop);
  runs.warm_up();
  BenchTimes times;
  for (int64_t r = 0; r < plan.repeat && plan.prefill > 0; ++r) {
    times.prefill.push_back(runs.prefill());
  }
  for (int64_t r = 0; r < plan.repeat && plan.decode > 0; ++r) {
    times.decode.push_back(runs.decode(r > 0));
  }
  return times;
}

BenchTimes run_batch_bench(const model::Model& model, kernels::Ops& ops, kernels::KvType kv,
                           int64_t kv_budget, const BenchPlan& plan, int64_t sequences,
                           const std::atomic<bool>* stop, int64_t* kv_bytes) {
  if (sequences * plan.prefill > engine::kMaxChunk) {
    throw UsageError(fmt::format("--sequences {} with -p {} are {} tokens; a step reads {} at most",
                                 sequences, plan.prefill, sequences * plan.prefill,
                                 engine::kMaxChunk));
  }
  engine::SchedulerOptions options;
  options.kv = kv;
  options.kv_budget = kv_budget;
  options.context = plan.prefill + plan.decode + 1;
  options.max_running = sequences;
  options.max_waiting = sequences;
  options.prefill_tokens = sequences * plan.prefill;
  options.keep_prefixes = false;
  options.reserve = true;
  engine::Scheduler scheduler(model, ops, options);
  // The first repetition, which is not counted, brings the weights into memory.
  BenchTimes times;
  for (int64_t r = 0; r <= plan.repeat; ++r) {
    const bool warm_up = r == 0;
    std::vector<std::vector<int32_t>> prompts;
    for (int64_t s = 0; s < sequences; ++s) {
      prompts.push_back(bench_tokens(model.config().vocab_size, warm_up ? 1 : plan.prefill,
                                     static_cast<uint64_t>(s) + 1));
    }
    // The first token of each comes with the prompt and is in no step of decoding.
    const int64_t decoded = warm_up ? 1 : plan.decode;
    const engine::DecodeBatch batch = engine::decode_batch(scheduler, prompts, decoded + 1, stop);
    require_together(batch, sequences, decoded, scheduler.stats());
    if (warm_up) continue;
    times.prefill.push_back(batch.prefill_seconds);
    times.decode.push_back(batch.decode_seconds);
  }
  *kv_bytes = scheduler.stats().kv_bytes_peak;
  return times;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

}  // namespace carat::app
