#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/testing/random_model.h"

namespace carat::engine {
namespace {

model::Model random_model(const char* size) {
  model::Model m;
  m.weights =
      model::testing::random_weights(model::config_of_size(size), DType::kQ4_0, DType::kQ6_K);
  return m;
}

std::vector<int32_t> random_tokens(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> t = {2};
  while (static_cast<int64_t>(t.size()) < n) t.push_back(static_cast<int32_t>(rng.below(512)));
  return t;
}

// What a request came to.
struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // all rows that tokens were sampled from
  GenerateResult result;
  int ended = 0;
  std::string error;
};

class Schedule : public ::testing::TestWithParam<const char*> {
 protected:
  Request request(std::vector<int32_t> tokens, int64_t max_tokens, Outcome& out,
                  uint64_t seed = 1) {
    Request r;
    r.tokens = std::move(tokens);
    r.max_tokens = max_tokens;
    r.sampling.seed = seed;
    r.on_token = [&out](const SampledToken& t) {
      EXPECT_EQ(t.index, static_cast<int64_t>(out.tokens.size()));
      out.tokens.push_back(t.id);
      out.logits.insert(out.logits.end(), t.logits.begin(), t.logits.end());
      return true;
    };
    r.on_end = [&out](const GenerateResult& result) {
      ++out.ended;
      out.result = result;
    };
    r.on_error = [&out](const Error& error) {
      ++out.ended;
      out.error = error.what();
    };
    return r;
  }

  // The request alone, in a session of its own.
  Outcome alone(const std::vector<int32_t>& tokens, int64_t max_tokens, uint64_t seed = 1,
                kernels::KvType kv = kernels::KvType::kI8) {
    SessionOptions o;
    o.kv = kv;
    Session session(model_, ops_, o);
    Outcome out;
    Sampler sampler(
        [&] {
          SamplingOptions s;
          s.seed = seed;
          return s;
        }(),
        session.vocab_size());
    std::vector<int32_t> all = tokens;
    std::span<const float> logits = session.read(tokens);
    while (static_cast<int64_t>(out.tokens.size()) < max_tokens) {
      out.logits.insert(out.logits.end(), logits.begin(), logits.end());
      out.tokens.push_back(sampler.sample(logits, all));
      all.push_back(out.tokens.back());
      if (session.length() < session.capacity()) logits = session.read(std::span(&all.back(), 1));
    }
    return out;
  }

  void expect_same(const Outcome& got, const Outcome& expected, const std::string& what = "") {
    EXPECT_EQ(got.error, "") << what;
    EXPECT_EQ(got.ended, 1) << what;
    EXPECT_EQ(got.tokens, expected.tokens) << what;
    EXPECT_EQ(got.result.tokens, expected.tokens) << what;
    EXPECT_TRUE(got.logits == expected.logits) << what;
  }

  model::Model model_ = random_model(GetParam());
  ThreadPool pool_{2};
  kernels::CpuOps ops_{pool_};
};
INSTANTIATE_TEST_SUITE_P(Kinds, Schedule, ::testing::Values("tiny", "tinykv", "tinymoe"),
                         [](const auto& param) { return std::string(param.param); });

TEST_P(Schedule, BatchesAndChunksChangeNoBit) {
  const int64_t lengths[] = {1, 5, 64, 70, 200, 131};
  std::vector<Outcome> expected;
  for (size_t i = 0; i < std::size(lengths); ++i) {
    expected.push_back(alone(random_tokens(lengths[i], i), 20, i));
  }
  for (const int64_t budget : {512, 100, 16, 1}) {
    SchedulerOptions o;
    o.prefill_tokens = budget;
    Scheduler scheduler(model_, ops_, o);
    std::vector<Outcome> got(std::size(lengths));
    for (size_t i = 0; i < got.size(); ++i) {
      scheduler.submit(request(random_tokens(lengths[i], i), 20, got[i], i));
      scheduler.step();  // they begin at different times
    }
    scheduler.run();
    for (size_t i = 0; i < got.size(); ++i) {
      expect_same(got[i], expected[i], "budget " + std::to_string(budget));
      EXPECT_EQ(got[i].result.reason, StopReason::kMaxTokens);
    }
  }
}

}  // namespace
}  // namespace carat::engine
