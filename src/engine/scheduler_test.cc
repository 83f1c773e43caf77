#include "engine/scheduler_test.h"

namespace carat::engine {
namespace {

class Schedule : public ::testing::TestWithParam<const char*>, public SchedulerTest {
 protected:
  Schedule() : SchedulerTest(GetParam()) {}
};
INSTANTIATE_TEST_SUITE_P(Kinds, Schedule, ::testing::Values("tiny", "tinykv", "tinymoe"),
                         [](const auto& param) { return std::string(param.param); });

TEST_P(Schedule, BatchesAndChunksChangeNoBit) {
  const int64_t lengths[] = {1, 5, 64, 70, 200, 131};
  std::vector<Outcome> expected;
  for (size_t i = 0; i < std::size(lengths); ++i) {
    expected.push_back(alone(random_tokens(lengths[i], i), 20, i));
  }
  for (const int64_t budget : {512, 100, 16, 3}) {
    SchedulerOptions o;
    o.prefill_tokens = budget;
    Scheduler scheduler(model, ops, o);
    std::vector<Outcome> got(std::size(lengths));
    for (size_t i = 0; i < got.size(); ++i) {
      scheduler.submit(request(random_tokens(lengths[i], i), 20, got[i], i));
      scheduler.step();  // they begin at different times
    }
    scheduler.run();
    for (size_t i = 0; i < got.size(); ++i) {
      expect_same(got[i], expected[i], "budget " + std::to_string(budget));
      EXPECT_EQ(got[i].result.reason, StopReason::kMaxTokens);
      EXPECT_EQ(got[i].result.prompt_tokens, lengths[i]);
      EXPECT_EQ(got[i].result.decode_steps, 19);
    }
  }
}

TEST_P(Schedule, TakesTheLongestPrefixInMemory) {
  SchedulerOptions o;
  o.restart_every = 64;
  Scheduler scheduler(model, ops, o);
  const std::vector<int32_t> prompt = random_tokens(200, 1);
  Outcome first;
  scheduler.submit(request(prompt, 10, first));
  scheduler.run();
  expect_same(first, alone(prompt, 10));
  EXPECT_EQ(first.result.reused_tokens, 0);
  for (const int64_t shared : {199, 150, 128, 100, 64, 30}) {
    std::vector<int32_t> next(prompt.begin(), prompt.begin() + shared);
    next.push_back(prompt[static_cast<size_t>(shared)] ^ 1);
    next = joined(next, random_tokens(20, static_cast<uint64_t>(shared)));
    Outcome got;
    scheduler.submit(request(next, 10, got));
    scheduler.run();
    expect_same(got, alone(next, 10), std::to_string(shared));
    EXPECT_EQ(got.result.reused_tokens, shared);
  }
  // The same prompt again, and a conversation that goes on.
  Outcome again, more;
  scheduler.submit(request(prompt, 10, again));
  scheduler.run();
  expect_same(again, first);
  EXPECT_EQ(again.result.reused_tokens, 199);
  const std::vector<int32_t> turn = joined(joined(prompt, first.tokens), random_tokens(30, 5));
  scheduler.submit(request(turn, 10, more));
  scheduler.run();
  expect_same(more, alone(turn, 10));
  EXPECT_EQ(more.result.reused_tokens, 209);  // the last token of the answer was not read
}

TEST_P(Schedule, PrefixOutsideEveryWindowIsReadAgain) {
  Scheduler scheduler(model, ops, {});  // no restart points but at the end of the prompt
  const std::vector<int32_t> prompt = random_tokens(300, 1);
  Outcome first, second;
  scheduler.submit(request(prompt, 1, first));
  scheduler.run();
  std::vector<int32_t> next(prompt.begin(), prompt.begin() + 100);
  next = joined(next, random_tokens(50, 9));
  scheduler.submit(request(next, 5, second));
  scheduler.run();
  EXPECT_EQ(second.result.reused_tokens, 0);
  expect_same(second, alone(next, 5));
}

TEST_P(Schedule, ReadsASharedPromptOnce) {
  SchedulerOptions o;
  o.prefill_tokens = 128;
  Scheduler scheduler(model, ops, o);
  const std::vector<int32_t> prompt = random_tokens(330, 1);
  std::vector<Outcome> got(4);
  for (size_t i = 0; i < got.size(); ++i) scheduler.submit(request(prompt, 8, got[i], i));
  scheduler.run();
  for (size_t i = 0; i < got.size(); ++i) expect_same(got[i], alone(prompt, 8, i));
  EXPECT_LE(scheduler.stats().tokens_prefilled, 330 + 3 * 2);
  EXPECT_GE(scheduler.stats().tokens_reused, 3 * 328);
}

// What is shared inside a page is found only if a restart point is there: without one it is not
// waited for.
TEST_P(Schedule, WaitsOnlyForWhatWillBeFound) {
  for (const bool keep : {false, true}) {
    SchedulerOptions o;
    o.keep_prefixes = keep;
    Scheduler scheduler(model, ops, o);
    const std::vector<int32_t> begin = random_tokens(50, 1);
    std::vector<Outcome> got(8);
    for (size_t i = 0; i < got.size(); ++i) {
      scheduler.submit(request(joined(begin, random_tokens(10, 20 + i)), 1, got[i]));
    }
    scheduler.run();
    EXPECT_EQ(scheduler.stats().steps, keep ? 2 : 1);
    EXPECT_EQ(scheduler.stats().tokens_reused, keep ? 7 * 51 : 0);
    for (size_t i = 0; i < got.size(); ++i) {
      expect_same(got[i], alone(joined(begin, random_tokens(10, 20 + i)), 1));
    }
  }
}

TEST_P(Schedule, SequencesPartInsideAPage) {
  Scheduler scheduler(model, ops, {});
  const std::vector<int32_t> prompt = random_tokens(90, 1);
  std::vector<std::vector<int32_t>> prompts;
  for (uint64_t i = 0; i < 4; ++i) prompts.push_back(joined(prompt, random_tokens(20, 10 + i)));
  Outcome begun;
  scheduler.submit(request(prompt, 40, begun));
  for (int i = 0; i < 3; ++i) scheduler.step();
  std::vector<Outcome> got(prompts.size());
  for (size_t i = 0; i < got.size(); ++i) scheduler.submit(request(prompts[i], 10, got[i]));
  scheduler.run();
  expect_same(begun, alone(prompt, 40));
  for (size_t i = 0; i < got.size(); ++i) {
    expect_same(got[i], alone(prompts[i], 10));
    EXPECT_GE(got[i].result.reused_tokens, 89);
  }
}

TEST_P(Schedule, ResultsSurvivePreemption) {
  SchedulerOptions o;
  o.prefill_tokens = 64;
  // Room for two and a bit of the four.
  o.kv_budget = bytes(160, 64) * 5 / 2;
  o.keep_prefixes = GetParam() != std::string("tinykv");
  Scheduler scheduler(model, ops, o);
  std::vector<Outcome> got(4);
  for (size_t i = 0; i < got.size(); ++i) {
    scheduler.submit(request(random_tokens(60, i), 100, got[i], i));
  }
  scheduler.run();
  for (size_t i = 0; i < got.size(); ++i) expect_same(got[i], alone(random_tokens(60, i), 100, i));
  const SchedulerStats s = scheduler.stats();
  EXPECT_GT(s.preemptions, 0);
  EXPECT_LE(s.kv_bytes_peak, o.kv_budget);
  EXPECT_EQ(s.requests_ended, 4);
  if (!o.keep_prefixes) {
    EXPECT_EQ(s.kv_bytes, 0);
  }
}

TEST_P(Schedule, ReservingNeverPreempts) {
  SchedulerOptions o;
  o.prefill_tokens = 64;
  o.kv_budget = bytes(160, 64) * 5 / 2;
  o.reserve = true;
  Scheduler scheduler(model, ops, o);
  std::vector<Outcome> got(5);
  for (size_t i = 0; i < got.size(); ++i) {
    scheduler.submit(request(random_tokens(60, i), 100, got[i], i));
  }
  int64_t most = 0;
  while (scheduler.step()) most = std::max(most, scheduler.stats().running);
  for (size_t i = 0; i < got.size(); ++i) expect_same(got[i], alone(random_tokens(60, i), 100, i));
  EXPECT_EQ(scheduler.stats().preemptions, 0);
  EXPECT_EQ(most, 2);
  EXPECT_LE(scheduler.stats().kv_bytes_peak, o.kv_budget);
}

class OneSchedule : public ::testing::Test, public SchedulerTest {
 protected:
  OneSchedule() : SchedulerTest("tiny") {}
};

TEST_F(OneSchedule, LongPromptsDoNotHoldUpOthers) {
  SchedulerOptions o;
  o.prefill_tokens = 32;
  Scheduler scheduler(model, ops, o);
  Outcome decoding, longest, shorter;
  scheduler.submit(request(random_tokens(10, 1), 200, decoding));
  scheduler.step();
  scheduler.submit(request(random_tokens(1500, 2), 2, longest));
  for (int i = 0; i < 5; ++i) scheduler.step();
  scheduler.submit(request(random_tokens(40, 3), 2, shorter));
  int64_t steps_of_shorter = 0;
  while (longest.ended == 0) {
    const int64_t prefilled = scheduler.stats().tokens_prefilled;
    const size_t decoded = decoding.tokens.size();
    ASSERT_TRUE(scheduler.step());
    EXPECT_LE(scheduler.stats().tokens_prefilled - prefilled, 32);
    if (decoding.ended == 0) {
      EXPECT_EQ(decoding.tokens.size(), decoded + 1);
    }
    if (shorter.tokens.empty()) ++steps_of_shorter;
  }
  EXPECT_LE(steps_of_shorter, 2);  // 24 tokens a step, a quarter is the long one's
  expect_same(longest, alone(random_tokens(1500, 2), 2));
  expect_same(shorter, alone(random_tokens(40, 3), 2));
}

TEST_F(OneSchedule, ShortPromptsDoNotHoldUpALongOne) {
  SchedulerOptions o;
  o.prefill_tokens = 32;
  o.max_running = 3;
  Scheduler scheduler(model, ops, o);
  Outcome longest;
  scheduler.submit(request(random_tokens(400, 2), 1, longest));
  std::vector<Outcome> others(200);
  for (size_t i = 0; i < others.size(); ++i) {
    scheduler.submit(request(random_tokens(30, 10 + i), 1, others[i]));
  }
  int64_t steps = 0;
  while (longest.ended == 0) {
    ASSERT_TRUE(scheduler.step());
    ++steps;
  }
  EXPECT_LE(steps, 400 / 8 + 1);
}

TEST_F(OneSchedule, PriorityGoesFirst) {
  SchedulerOptions o;
  o.max_running = 1;
  Scheduler scheduler(model, ops, o);
  std::vector<int> order;
  std::vector<Outcome> got(4);
  const int32_t priorities[] = {0, 0, 5, 5};
  for (int i = 0; i < 4; ++i) {
    Request r = request(random_tokens(10, 1), 2, got[static_cast<size_t>(i)]);
    r.priority = priorities[i];
    r.on_end = [&order, i](const GenerateResult&) { order.push_back(i); };
    scheduler.submit(std::move(r));
  }
  scheduler.run();
  EXPECT_EQ(order, (std::vector<int>{2, 3, 0, 1}));
}

TEST_F(OneSchedule, EndsAsAsked) {
  Scheduler scheduler(model, ops, {});
  const std::vector<int32_t> prompt = random_tokens(20, 1);
  const Outcome all = alone(prompt, 20);
  Outcome stopped, cut, none;
  Request r = request(prompt, 20, stopped);
  r.stop_ids = {all.tokens[12]};
  scheduler.submit(std::move(r));
  r = request(prompt, 20, cut);
  r.on_token = [](const SampledToken& t) { return t.index < 4; };
  scheduler.submit(std::move(r));
  scheduler.submit(request(prompt, 0, none));
  scheduler.run();
  EXPECT_EQ(stopped.result.reason, StopReason::kStopToken);
  EXPECT_EQ(stopped.result.stop_token, all.tokens[12]);
  const auto end = std::find(all.tokens.begin(), all.tokens.end(), all.tokens[12]);
  EXPECT_EQ(stopped.result.tokens, std::vector<int32_t>(all.tokens.begin(), end));
  EXPECT_EQ(cut.result.reason, StopReason::kCaller);
  EXPECT_EQ(cut.result.tokens, std::vector<int32_t>(all.tokens.begin(), all.tokens.begin() + 5));
  EXPECT_EQ(none.result.reason, StopReason::kMaxTokens);
  EXPECT_EQ(none.result.tokens.size(), 0u);
  EXPECT_EQ(none.ended, 1);
}

TEST_F(OneSchedule, ContextOrMemoryEndsAnAnswer) {
  SchedulerOptions o;
  o.context = 64;
  Outcome got;
  {
    Scheduler scheduler(model, ops, o);
    scheduler.submit(request(random_tokens(60, 1), -1, got));
    scheduler.run();
    EXPECT_EQ(got.result.reason, StopReason::kContext);
    EXPECT_EQ(got.tokens.size(), 5u);  // four are read, the fifth comes from the last logits
  }
  o.context = 0;
  o.prefill_tokens = 64;
  o.kv_budget = bytes(128, 64);
  Scheduler scheduler(model, ops, o);
  EXPECT_EQ(scheduler.capacity(), 128);
  Outcome a, b;
  scheduler.submit(request(random_tokens(100, 1), -1, a));
  scheduler.submit(request(random_tokens(90, 2), -1, b));
  scheduler.run();
  EXPECT_EQ(a.result.reason, StopReason::kContext);
  EXPECT_EQ(b.result.reason, StopReason::kContext);
  EXPECT_EQ(a.tokens, alone(random_tokens(100, 1), 29).tokens);
  EXPECT_EQ(b.tokens, alone(random_tokens(90, 2), 39).tokens);
}

TEST_F(OneSchedule, RefusesWhatCouldNeverRun) {
  SchedulerOptions o;
  o.kv_budget = bytes(128, 512);
  o.max_waiting = 2;
  Scheduler scheduler(model, ops, o);
  Outcome out;
  int ended = 0;
  const auto error = [&](std::vector<int32_t> tokens) -> std::string {
    try {
      Request r;
      r.tokens = std::move(tokens);
      r.max_tokens = 5;
      r.on_end = [&](const GenerateResult&) { ++ended; };
      scheduler.submit(std::move(r));
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  };
  EXPECT_NE(error({}).find("empty"), std::string::npos);
  EXPECT_NE(error({2, 512}).find("no such token"), std::string::npos);
  EXPECT_NE(error(random_tokens(5000, 1)).find("longer than the context"), std::string::npos);
  EXPECT_NE(error(random_tokens(129, 1)).find("more memory"), std::string::npos);
  Request r = request({2}, 5, out);
  r.sampling.top_p = 2;
  EXPECT_THROW(scheduler.submit(std::move(r)), Error);
  EXPECT_FALSE(scheduler.step());
  EXPECT_EQ(error({2, 3}), "");
  EXPECT_EQ(error({2, 4}), "");
  EXPECT_THROW(scheduler.submit(request({2, 5}, 5, out)), QueueFull);
  scheduler.run();
  EXPECT_EQ(ended, 2);

  for (const auto change : {+[](SchedulerOptions& s) { s.max_running = 0; },
                            +[](SchedulerOptions& s) { s.max_waiting = 0; },
                            +[](SchedulerOptions& s) { s.prefill_tokens = 0; },
                            +[](SchedulerOptions& s) { s.kv_budget = -1; },
                            +[](SchedulerOptions& s) { s.restart_every = -1; },
                            +[](SchedulerOptions& s) { s.context = 4097; }}) {
    SchedulerOptions bad;
    change(bad);
    EXPECT_THROW(Scheduler(model, ops, bad), Error);
  }
}

TEST_F(OneSchedule, FilterDecidesWhatMayCome) {
  Scheduler scheduler(model, ops, {});
  const std::vector<int32_t> prompt = random_tokens(20, 1);
  Outcome got, plain;
  Request r = request(prompt, 10, got);
  std::vector<size_t> seen;
  r.filter = [&](std::span<float> logits, std::span<const int32_t> tokens) {
    seen.push_back(tokens.size());
    for (size_t id = 0; id < logits.size(); ++id) {
      if (id % 100 != 7) logits[id] = -INFINITY;
    }
  };
  scheduler.submit(std::move(r));
  scheduler.submit(request(prompt, 10, plain));
  scheduler.run();
  for (const int32_t token : got.tokens) EXPECT_EQ(token % 100, 7);
  EXPECT_EQ(seen, (std::vector<size_t>{20, 21, 22, 23, 24, 25, 26, 27, 28, 29}));
  const Outcome expected = alone(prompt, 10);
  expect_same(plain, expected);
  // The hook sees the model's own logits.
  EXPECT_TRUE(std::equal(got.logits.begin(), got.logits.begin() + 512, expected.logits.begin()));
}

TEST_F(OneSchedule, WhatAHookThrowsEndsItsRequestOnly) {
  Scheduler scheduler(model, ops, {});
  Outcome bad_filter, bad_token, nothing_left, good;
  Request r = request(random_tokens(20, 1), 10, bad_filter);
  r.filter = [](std::span<float>, std::span<const int32_t>) { throw Error("no way on"); };
  scheduler.submit(std::move(r));
  r = request(random_tokens(20, 2), 10, bad_token);
  r.on_token = [](const SampledToken& t) -> bool {
    if (t.index == 3) throw std::runtime_error("closed");
    return true;
  };
  scheduler.submit(std::move(r));
  r = request(random_tokens(20, 3), 10, nothing_left);
  r.filter = [](std::span<float> logits, std::span<const int32_t>) {
    std::fill(logits.begin(), logits.end(), -INFINITY);
  };
  scheduler.submit(std::move(r));
  scheduler.submit(request(random_tokens(20, 4), 10, good));
  scheduler.run();
  EXPECT_EQ(bad_filter.error, "no way on");
  EXPECT_EQ(bad_token.error, "closed");
  EXPECT_NE(nothing_left.error, "");
  expect_same(good, alone(random_tokens(20, 4), 10));
  scheduler.clear_prefixes();
  EXPECT_EQ(scheduler.stats().kv_bytes, 0);
}

TEST_F(OneSchedule, CancelTakesEffectBetweenSteps) {
  SchedulerOptions o;
  o.max_running = 2;
  o.prefill_tokens = 16;
  Scheduler scheduler(model, ops, o);
  Outcome decoding, reading, waiting, self;
  const RequestId a = scheduler.submit(request(random_tokens(10, 1), 50, decoding));
  const RequestId b = scheduler.submit(request(random_tokens(100, 2), 50, reading));
  const RequestId c = scheduler.submit(request(random_tokens(10, 3), 50, waiting));
  for (int i = 0; i < 3; ++i) scheduler.step();
  EXPECT_EQ(scheduler.stats().running, 2);
  EXPECT_EQ(scheduler.stats().waiting, 1);
  for (const RequestId id : {a, b, c}) scheduler.cancel(id);
  EXPECT_EQ(decoding.ended + reading.ended + waiting.ended, 0);
  EXPECT_FALSE(scheduler.step());
  for (const Outcome* out : {&decoding, &reading, &waiting}) {
    EXPECT_EQ(out->ended, 1);
    EXPECT_EQ(out->result.reason, StopReason::kCancelled);
  }
  EXPECT_EQ(decoding.result.tokens, decoding.tokens);
  EXPECT_GT(decoding.tokens.size(), 0u);
  scheduler.cancel(a);
  scheduler.cancel(12345);
  EXPECT_FALSE(scheduler.step());

  Request r = request(random_tokens(10, 4), 50, self);
  RequestId id = 0;
  r.on_token = [&](const SampledToken& t) {
    if (t.index == 5) scheduler.cancel(id);
    return true;
  };
  id = scheduler.submit(std::move(r));
  scheduler.run();
  EXPECT_EQ(self.result.reason, StopReason::kCancelled);
  EXPECT_EQ(self.result.tokens.size(), 6u);
  scheduler.clear_prefixes();
  EXPECT_EQ(scheduler.stats().kv_bytes, 0);
  EXPECT_EQ(scheduler.stats().restart_points, 0);
}

TEST_F(OneSchedule, TellsWhatItDid) {
  Scheduler scheduler(model, ops, {});
  std::vector<int64_t> done;
  Outcome a, b;
  Request r = request(random_tokens(600, 1), 5, a);
  r.on_prompt = [&](int64_t n, int64_t total) {
    EXPECT_EQ(total, 600);
    done.push_back(n);
  };
  scheduler.submit(std::move(r));
  scheduler.run();
  EXPECT_EQ(done, (std::vector<int64_t>{512, 600}));
  scheduler.submit(request(random_tokens(600, 1), 5, b));
  scheduler.run();
  const SchedulerStats s = scheduler.stats();
  EXPECT_EQ(s.steps, 2 + 4 + 1 + 4);
  EXPECT_EQ(s.tokens_prefilled, 601);
  EXPECT_EQ(s.tokens_reused, 599);
  EXPECT_EQ(s.tokens_decoded, 8);
  EXPECT_EQ(s.tokens_sampled, 10);
  EXPECT_EQ(s.requests_ended, 2);
  EXPECT_EQ(s.running, 0);
  EXPECT_EQ(s.kv_bytes, s.kv_bytes_kept);
  EXPECT_GT(s.kv_bytes, 0);
  EXPECT_GE(s.kv_bytes_peak, s.kv_bytes);
  EXPECT_EQ(s.kv_bytes_budget, bytes(4096, 512));
}

TEST_F(OneSchedule, KeptPrefixesGiveWay) {
  SchedulerOptions o;
  o.prefill_tokens = 64;
  o.kv_budget = bytes(256, 64);
  Scheduler scheduler(model, ops, o);
  for (uint64_t i = 0; i < 6; ++i) {
    Outcome got;
    scheduler.submit(request(random_tokens(200, i), 20, got));
    scheduler.run();
    expect_same(got, alone(random_tokens(200, i), 20));
  }
  const SchedulerStats s = scheduler.stats();
  EXPECT_GT(s.evictions, 0);
  EXPECT_EQ(s.preemptions, 0);
  EXPECT_LE(s.kv_bytes_peak, o.kv_budget);
}

TEST_F(OneSchedule, DecodesABatch) {
  Scheduler scheduler(model, ops, {});
  std::vector<std::vector<int32_t>> prompts;
  for (uint64_t i = 0; i < 3; ++i) prompts.push_back(random_tokens(5 + static_cast<int64_t>(i), i));
  const DecodeBatch r = decode_batch(scheduler, prompts, 9);
  EXPECT_EQ(r.decode_steps, 8);
  EXPECT_EQ(r.decoded_tokens, 24);
  EXPECT_EQ(r.preemptions, 0);
  EXPECT_EQ(decode_batch(scheduler, prompts, 1).decoded_tokens, 0);
  std::atomic<bool> stop = true;
  EXPECT_THROW((void)decode_batch(scheduler, prompts, 9, &stop), Interrupted);
}

}  // namespace
}  // namespace carat::engine
