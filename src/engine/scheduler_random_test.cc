// Random requests, cancels and budgets: results, memory, threads.
#include <atomic>
#include <deque>
#include <map>
#include <thread>

#include "engine/scheduler_test.h"

namespace carat::engine {
namespace {

class RandomLoad : public ::testing::TestWithParam<int>, public SchedulerTest {
 protected:
  RandomLoad() : SchedulerTest(GetParam() % 2 == 0 ? "tiny" : "tinykv") {}

  struct Job {
    std::vector<int32_t> prompt;
    int64_t max_tokens = 0;
    uint64_t seed = 0;
    RequestId id = 0;
    Outcome out;
  };

  // Prompts that share beginnings of all lengths.
  std::vector<int32_t> prompt(Rng& rng) {
    std::vector<int32_t> t = random_tokens(300, rng.below(3));
    t.resize(1 + rng.below(t.size()));
    return joined(t, random_tokens(1 + static_cast<int64_t>(rng.below(60)), rng.below(4)));
  }

  SchedulerOptions options(Rng& rng) {
    SchedulerOptions o;
    const int64_t chunks[] = {7, 32, 64, 200};
    o.prefill_tokens = chunks[rng.below(4)];
    o.max_running = 1 + static_cast<int64_t>(rng.below(6));
    o.kv_budget = bytes(450, o.prefill_tokens) * (4 + static_cast<int64_t>(rng.below(9))) / 4;
    o.restart_every = rng.below(2) == 0 ? 0 : 64 * (1 + static_cast<int64_t>(rng.below(3)));
    o.reserve = rng.below(4) == 0;
    o.keep_prefixes = rng.below(4) != 0;
    return o;
  }

  // The answers of a request do not depend on what else happens, so they are worked out once.
  void expect_right(const Job& job) {
    ASSERT_EQ(job.out.ended, 1);
    EXPECT_EQ(job.out.error, "");
    Outcome expected = alone(job.prompt, job.max_tokens, job.seed);
    if (job.out.result.reason == StopReason::kCancelled) {
      ASSERT_LE(job.out.tokens.size(), expected.tokens.size());
      expected.tokens.resize(job.out.tokens.size());
      expected.logits.resize(job.out.logits.size());
    }
    EXPECT_EQ(job.out.tokens, expected.tokens);
    EXPECT_TRUE(job.out.logits == expected.logits);
  }
};
INSTANTIATE_TEST_SUITE_P(Seeds, RandomLoad, ::testing::Range(0, 8));

TEST_P(RandomLoad, RightAnswersWithinTheBudgetAndNothingLeaks) {
  Rng rng(static_cast<uint64_t>(GetParam()) + 100);
  const SchedulerOptions o = options(rng);
  Scheduler scheduler(model, ops, o);
  std::deque<Job> jobs;
  for (int round = 0; round < 60; ++round) {
    for (uint64_t n = rng.below(3); n > 0 && jobs.size() < 40; --n) {
      Job& job = jobs.emplace_back();
      job.prompt = prompt(rng);
      job.max_tokens = static_cast<int64_t>(rng.below(40));
      job.seed = rng.below(5);
      Request r = request(job.prompt, job.max_tokens, job.out, job.seed);
      r.priority = static_cast<int32_t>(rng.below(2));
      job.id = scheduler.submit(std::move(r));
    }
    if (rng.below(6) == 0 && !jobs.empty()) scheduler.cancel(jobs[rng.below(jobs.size())].id);
    if (rng.below(20) == 0) scheduler.clear_prefixes();
    for (uint64_t n = rng.below(6); n > 0; --n) scheduler.step();
    const SchedulerStats s = scheduler.stats();
    ASSERT_LE(s.kv_bytes_peak, o.kv_budget);
    ASSERT_LE(s.running, o.max_running);
    if (o.reserve) {
      ASSERT_EQ(s.preemptions, 0);
    }
  }
  scheduler.run();
  const SchedulerStats s = scheduler.stats();
  EXPECT_EQ(s.requests_ended, static_cast<int64_t>(jobs.size()));
  EXPECT_EQ(s.running + s.waiting, 0);
  EXPECT_EQ(s.kv_bytes, s.kv_bytes_kept);
  EXPECT_LE(s.kv_bytes_peak, o.kv_budget);
  if (!o.keep_prefixes) {
    EXPECT_EQ(s.kv_bytes, 0);
  }
  scheduler.clear_prefixes();
  EXPECT_EQ(scheduler.stats().kv_bytes, 0);
  for (const Job& job : jobs) expect_right(job);
}

TEST(SchedulerThreads, SubmitAndCancelFromAnyThread) {
  SchedulerTest t("tiny");
  SchedulerOptions o;
  o.prefill_tokens = 64;
  o.kv_budget = t.bytes(300, 64) * 3;
  Scheduler scheduler(t.model, t.ops, o);
  constexpr int kThreads = 3, kEach = 12;
  std::deque<Outcome> outcomes(kThreads * kEach);
  std::atomic<int> clients{kThreads};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      Rng rng(static_cast<uint64_t>(thread));
      for (int i = 0; i < kEach; ++i) {
        Outcome& out = outcomes[static_cast<size_t>(thread * kEach + i)];
        const auto n = static_cast<int64_t>(1 + rng.below(150));
        const RequestId id = scheduler.submit(t.request(random_tokens(n, rng.below(3)), 10, out));
        (void)scheduler.stats();
        if (rng.below(3) == 0) std::this_thread::yield();
        if (rng.below(2) == 0) scheduler.cancel(id);
      }
      --clients;
    });
  }
  while (clients > 0 || scheduler.wait(std::chrono::milliseconds(0))) {
    if (scheduler.wait(std::chrono::milliseconds(5))) scheduler.step();
  }
  for (std::thread& thread : threads) thread.join();
  for (const Outcome& out : outcomes) {
    EXPECT_EQ(out.ended, 1);
    EXPECT_EQ(out.error, "");
    EXPECT_TRUE(out.result.reason == StopReason::kCancelled || out.tokens.size() == 10);
  }
  EXPECT_LE(scheduler.stats().kv_bytes_peak, o.kv_budget);
  scheduler.clear_prefixes();
  EXPECT_EQ(scheduler.stats().kv_bytes, 0);
}

}  // namespace
}  // namespace carat::engine
