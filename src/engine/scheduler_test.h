// What the tests of Scheduler share: small random models, requests and what they come to.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "engine/scheduler.h"
#include "engine/session.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/testing/random_model.h"

namespace carat::engine {

inline model::Model random_model(const char* size) {
  model::Model m;
  m.weights =
      model::testing::random_weights(model::config_of_size(size), DType::kQ4_0, DType::kQ6_K);
  return m;
}

inline std::vector<int32_t> random_tokens(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> t = {2};
  while (static_cast<int64_t>(t.size()) < n) t.push_back(static_cast<int32_t>(rng.below(512)));
  return t;
}

inline std::vector<int32_t> joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// What a request came to.
struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // all rows that tokens were sampled from
  GenerateResult result;
  int ended = 0;
  std::string error;
};

class SchedulerTest {
 public:
  explicit SchedulerTest(const char* size) : model(random_model(size)) {}

  // `out` outlives the request.
  static Request request(std::vector<int32_t> tokens, int64_t max_tokens, Outcome& out,
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

  // The request in a session of its own.
  Outcome alone(const std::vector<int32_t>& tokens, int64_t max_tokens, uint64_t seed = 1) {
    Session session(model, ops, {});
    SamplingOptions sampling;
    sampling.seed = seed;
    Sampler sampler(sampling, session.vocab_size());
    Outcome out;
    std::vector<int32_t> all = tokens;
    std::span<const float> logits = session.read(tokens);
    while (static_cast<int64_t>(out.tokens.size()) < max_tokens) {
      out.logits.insert(out.logits.end(), logits.begin(), logits.end());
      out.tokens.push_back(sampler.sample(logits, all));
      all.push_back(out.tokens.back());
      logits = session.read(std::span(&all.back(), 1));
    }
    return out;
  }

  static void expect_same(const Outcome& got, const Outcome& expected,
                          const std::string& what = "") {
    EXPECT_EQ(got.error, "") << what;
    EXPECT_EQ(got.ended, 1) << what;
    EXPECT_EQ(got.tokens, expected.tokens) << what;
    EXPECT_EQ(got.result.tokens, expected.tokens) << what;
    EXPECT_TRUE(got.logits == expected.logits) << what;
  }

  // Of a sequence of n tokens, read in chunks of at most `chunk`.
  int64_t bytes(int64_t n, int64_t chunk) const {
    return model::kv_bytes(model.config(), kernels::KvType::kI8, n, chunk);
  }

  model::Model model;
  ThreadPool pool{1};
  kernels::CpuOps ops{pool};
};

}  // namespace carat::engine
