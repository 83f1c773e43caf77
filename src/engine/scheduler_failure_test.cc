// What becomes of requests when a step fails.
#include <cstdlib>
#include <new>

#include "engine/scheduler_test.h"

namespace {

// Allocations of this thread until one fails; negative: none does.
thread_local int64_t allocations_left = -1;

void* allocate_or_null(size_t bytes) {
  if (allocations_left >= 0 && allocations_left-- == 0) return nullptr;
  return std::malloc(bytes == 0 ? 1 : bytes);
}

void* allocate(size_t bytes) {
  if (void* p = allocate_or_null(bytes)) return p;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(size_t bytes) { return allocate(bytes); }
void* operator new[](size_t bytes) { return allocate(bytes); }
// The forms that return null are replaced as well: a sanitizer's own would not match the deletes.
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return allocate_or_null(bytes); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept {
  return allocate_or_null(bytes);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }

namespace carat::engine {
namespace {

struct Counts {
  int tokens = 0, ended = 0, failed = 0;
};

Request counted(std::vector<int32_t> tokens, int64_t max_tokens, Counts& counts) {
  Request r;
  r.tokens = std::move(tokens);
  r.max_tokens = max_tokens;
  r.on_token = [&counts](const SampledToken&) {
    ++counts.tokens;
    return true;
  };
  r.on_end = [&counts](const GenerateResult&) { ++counts.ended; };
  r.on_error = [&counts](const Error&) { ++counts.failed; };
  return r;
}

class SchedulerFailure : public ::testing::TestWithParam<const char*>, public SchedulerTest {
 protected:
  SchedulerFailure() : SchedulerTest(GetParam()) {}

  void expect_usable(Scheduler& scheduler) {
    Outcome after;
    scheduler.submit(request(random_tokens(70, 9), 5, after));
    scheduler.run();
    expect_same(after, alone(random_tokens(70, 9), 5));
    scheduler.clear_prefixes();
    EXPECT_EQ(scheduler.stats().kv_bytes, 0);
    EXPECT_EQ(scheduler.stats().running, 0);
    EXPECT_EQ(scheduler.stats().waiting, 0);
  }
};
INSTANTIATE_TEST_SUITE_P(Kinds, SchedulerFailure, ::testing::Values("tiny", "tinymoe"),
                         [](const auto& param) { return std::string(param.param); });

// Every allocation of a run fails once, each in a run of its own.
TEST_P(SchedulerFailure, NoMemoryEndsTheRequestsOfTheStep) {
  bool every_one = false;
  for (int64_t nth = 0; !every_one; nth += 1 + nth / 15) {
    SchedulerOptions o;
    o.prefill_tokens = 64;
    o.restart_every = 64;
    o.max_running = 2;
    Scheduler scheduler(model, ops, o);
    std::vector<Counts> got(3);
    const std::vector<int32_t> begin = random_tokens(66, 1);
    for (size_t i = 0; i < got.size(); ++i) {
      scheduler.submit(counted(joined(begin, random_tokens(30, i)), 4, got[i]));
    }
    allocations_left = nth;
    for (bool goes_on = true; goes_on;) {
      try {
        goes_on = scheduler.step();
      } catch (const std::bad_alloc&) {
        EXPECT_EQ(nth, 0) << "a step may throw only before it takes what came in";
      }
    }
    every_one = allocations_left >= 0;
    allocations_left = -1;
    int failed = 0;
    for (const Counts& c : got) {
      EXPECT_EQ(c.ended + c.failed, 1) << nth;
      if (c.ended > 0) EXPECT_EQ(c.tokens, 4) << nth;
      failed += c.failed;
    }
    if (every_one) EXPECT_EQ(failed, 0);
    expect_usable(scheduler);
    if (HasFailure()) return;
  }
}

TEST_P(SchedulerFailure, ABatchThatCannotBeSubmittedLeavesNothing) {
  SchedulerOptions o;
  o.max_waiting = 2;
  Scheduler scheduler(model, ops, o);
  const std::vector<std::vector<int32_t>> prompts(3, random_tokens(5, 1));
  EXPECT_THROW((void)decode_batch(scheduler, prompts, 4), QueueFull);
  EXPECT_EQ(scheduler.stats().waiting, 0);
  EXPECT_FALSE(scheduler.step());
  expect_usable(scheduler);
}

}  // namespace
}  // namespace carat::engine
