#include "train/adamw.h"

#include <gtest/gtest.h>

#include <cmath>

#include "train/tape_test_util.h"

namespace carat::train {
namespace {

using testing::Kind;
using testing::ModelLoss;

ParameterLayout two_parameters(int64_t n) {
  std::vector<kernels::Weight> w(2);
  for (int i = 0; i < 2; ++i) {
    w[i].id = i;
    w[i].rows = 1;
    w[i].cols = n;
  }
  return ParameterLayout(w, {true, false});
}

TEST(AdamW, FollowsTheFormulaAndDecaysMatricesOnly) {
  const ParameterLayout layout = two_parameters(20000);
  const auto n = static_cast<size_t>(layout.total());
  std::vector<float> w(n, 0.5f), m(n), v(n), g(n);
  std::vector<double> rw(n, 0.5), rm(n), rv(n);
  ThreadPool pool(2);
  const AdamWOptions o{0.9, 0.95, 1e-8, 0.1};
  Rng rng(1);
  for (int64_t step = 1; step <= 5; ++step) {
    for (float& x : g) x = static_cast<float>(rng.normal());
    adamw_step(layout, o, step, 1e-2, 0.5, g.data(), w.data(), m.data(), v.data(), pool);
    for (int id = 0; id < 2; ++id) {
      const auto& e = layout[id];
      for (int64_t i = e.offset; i < e.offset + e.size; ++i) {
        const double x = 0.5 * g[i];
        rm[i] = 0.9 * rm[i] + 0.1 * x;
        rv[i] = 0.95 * rv[i] + 0.05 * x * x;
        const double mh = rm[i] / (1 - std::pow(0.9, step));
        const double vh = rv[i] / (1 - std::pow(0.95, step));
        rw[i] -= 1e-2 * (mh / (std::sqrt(vh) + 1e-8) + (id == 0 ? 0.1 : 0.0) * rw[i]);
        ASSERT_NEAR(w[i], rw[i], 2e-6);
      }
    }
  }
}

TEST(AdamW, LearningRateWarmsUpAndFallsAlongACosine) {
  EXPECT_DOUBLE_EQ(learning_rate_at(1, 110, 10, 2.0, 0.1), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate_at(10, 110, 10, 2.0, 0.1), 2.0);
  EXPECT_NEAR(learning_rate_at(60, 110, 10, 2.0, 0.1), 1.1, 1e-12);
  EXPECT_NEAR(learning_rate_at(110, 110, 10, 2.0, 0.1), 0.2, 1e-12);
}

TEST(AdamW, GlobalNormDoesNotDependOnThreads) {
  std::vector<float> x(100001);
  Rng rng(4);
  for (float& f : x) f = static_cast<float>(rng.normal());
  ThreadPool one(1), three(3);
  const double a = global_norm(x.data(), static_cast<int64_t>(x.size()), one);
  EXPECT_EQ(a, global_norm(x.data(), static_cast<int64_t>(x.size()), three));
  double sum = 0;
  for (const float f : x) sum += static_cast<double>(f) * f;
  EXPECT_NEAR(a, std::sqrt(sum), 1e-9 * a);
}

class Overfit : public ::testing::TestWithParam<Kind> {};

TEST_P(Overfit, OneBatchIsLearnedByHeart) {
  const ModelLoss loss(testing::small_config(GetParam()), 2, 10, 51);
  auto w = testing::cast<float>(testing::random_model(loss.weights, loss.layout, 52));
  std::vector<float> g(w.size()), m(w.size()), v(w.size());
  ThreadPool pool(2);
  double value = 0;
  for (int64_t step = 1; step <= 150; ++step) {
    std::fill(g.begin(), g.end(), 0.0f);
    value = loss(w, &g, pool);
    if (step == 1) {
      EXPECT_GT(value, 3.0);
    }
    adamw_step(loss.layout, {}, step, 1e-2, 1.0, g.data(), w.data(), m.data(), v.data(), pool);
  }
  EXPECT_LT(value, 0.01);
}

INSTANTIATE_TEST_SUITE_P(AllKinds, Overfit,
                         ::testing::Values(Kind::kSmall, Kind::kKEqualsV, Kind::kMixture));

}  // namespace
}  // namespace carat::train
