#include "app/bench_runs.h"

#include <gtest/gtest.h>

#include "app/options.h"
#include "base/error.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/kv_cache.h"
#include "model/testing/random_model.h"

namespace carat::app {
namespace {

class BenchRuns : public ::testing::Test {
 protected:
  BenchRuns() {
    model.weights =
        model::testing::random_weights(model::config_of_size("tiny"), DType::kQ4_0, DType::kQ6_K);
    plan.prefill = 16;
    plan.decode = 80;
    plan.repeat = 2;
  }

  BenchTimes batch(int64_t sequences, int64_t budget) {
    return run_batch_bench(model, ops, kernels::KvType::kI8, budget, plan, sequences, nullptr,
                           &kv_bytes);
  }

  model::Model model;
  ThreadPool pool{1};
  kernels::CpuOps ops{pool};
  BenchPlan plan;
  int64_t kv_bytes = 0;
};

TEST_F(BenchRuns, ABatchIsTimedOnlyIfAllItsSequencesRunTogether) {
  const int64_t one =
      model::kv_bytes(model.config(), kernels::KvType::kI8, plan.prefill + plan.decode + 1, 64);
  const BenchTimes times = batch(4, 6 * one);
  EXPECT_EQ(times.prefill.size(), 2u);
  EXPECT_EQ(times.decode.size(), 2u);
  EXPECT_GE(kv_bytes, 3 * one);
  try {
    (void)batch(4, 5 * one / 2);
    FAIL() << "two sequences and a half hold no four";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("not enough memory for so many sequences"),
              std::string::npos)
        << error.what();
  }
}

TEST_F(BenchRuns, PromptsThatAreMoreThanAStepNameTheirOptions) {
  plan.prefill = 512;
  try {
    (void)batch(200, int64_t{1} << 40);
    FAIL() << "102400 tokens in a step";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("--sequences 200 with -p 512"), std::string::npos)
        << error.what();
  }
}

TEST_F(BenchRuns, TheMostMemoryIsKept) {
  engine::Session session(model, ops, {});
  plan.prefill = 300;
  plan.decode = 1;
  (void)run_bench(session, plan, nullptr);
  EXPECT_GT(session.kv_bytes_peak(), session.kv_bytes_in_use());
}

}  // namespace
}  // namespace carat::app
