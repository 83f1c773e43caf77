// Gradients of whole models: all three kinds, forward pass and loss together.
#include <gtest/gtest.h>

#include <cmath>

#include "train/tape_test_util.h"

namespace carat::train {
namespace {

using testing::Kind;
using testing::ModelLoss;

class ModelGradient : public ::testing::TestWithParam<Kind> {};

TEST_P(ModelGradient, AgreesWithDifferencesAlongRandomDirections) {
  const ModelLoss loss(testing::small_config(GetParam()), 2, 9, 3);
  ThreadPool pool(1);
  const std::vector<double> values = testing::random_model(loss.weights, loss.layout, 21);
  std::vector<double> g(values.size(), 0.0);
  loss(values, &g, pool);
  Rng rng(5);
  for (int round = 0; round < 2; ++round) {
    // A direction as long as the parameters, so that h is a relative step.
    std::vector<double> direction(values.size(), 0.0);
    for (const auto& e : loss.layout.entries()) {
      for (int64_t i = e.offset; i < e.offset + e.size; ++i) {
        direction[static_cast<size_t>(i)] = rng.normal() * 0.1;
      }
    }
    double want = 0;
    for (size_t i = 0; i < g.size(); ++i) want += g[i] * direction[i];
    std::vector<double> v(values.size());
    const auto at = [&](double h) {
      for (size_t i = 0; i < v.size(); ++i) v[i] = values[i] + h * direction[i];
      return loss(v, nullptr, pool);
    };
    // The error falls with h^2 until rounding takes over. In a mixture a large step changes which
    // experts are chosen, where the loss jumps: there only the small steps count.
    std::vector<double> errors;
    for (const double h : {1e-2, 1e-3, 1e-4, 1e-5, 1e-6}) {
      errors.push_back(std::fabs((at(h) - at(-h)) / (2 * h) - want) / std::fabs(want));
    }
    if (GetParam() != Kind::kMixture) {
      EXPECT_LT(errors[2], errors[0] / 1000);
    }
    EXPECT_LT(*std::min_element(errors.begin(), errors.end()), 1e-7);
  }
}

TEST_P(ModelGradient, FloatAgreesWithDouble) {
  const ModelLoss loss(testing::small_config(GetParam()), 3, 20, 4);
  ThreadPool pool(2);
  const std::vector<double> values = testing::random_model(loss.weights, loss.layout, 22);
  std::vector<double> g(values.size(), 0.0);
  std::vector<float> gf(values.size(), 0.0f);
  const double a = loss(values, &g, pool);
  const double b = loss(testing::cast<float>(values), &gf, pool);
  EXPECT_NEAR(a, b, 1e-5 * a);
  // Tensor by tensor, not only in total.
  for (size_t id = 0; id < loss.weights.all.size(); ++id) {
    const auto& e = loss.layout[static_cast<int64_t>(id)];
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = e.offset; i < e.offset + e.size; ++i) {
      ab += g[i] * gf[i];
      aa += g[i] * g[i];
      bb += static_cast<double>(gf[i]) * gf[i];
    }
    ASSERT_GT(aa, 0) << model::hf_name(loss.weights.refs[id]) << " has no gradient";
    EXPECT_GT(ab / std::sqrt(aa * bb), 0.99999) << model::hf_name(loss.weights.refs[id]);
  }
}

TEST_P(ModelGradient, IsTheSameForAnyNumberOfThreads) {
  const ModelLoss loss(testing::small_config(GetParam()), 4, 70, 6);
  const auto values = testing::cast<float>(testing::random_model(loss.weights, loss.layout, 23));
  ThreadPool one(1);
  std::vector<float> g1(values.size(), 0.0f);
  const double a = loss(values, &g1, one);
  for (const int threads : {2, 3, 4}) {
    ThreadPool pool(threads);
    std::vector<float> g(values.size(), 0.0f);
    EXPECT_EQ(loss(values, &g, pool), a);
    EXPECT_EQ(g, g1) << threads << " threads";
  }
}

TEST_P(ModelGradient, SequencesOfABatchDoNotTouch) {
  // The loss of two sequences together is the mean of their losses alone.
  const model::Config config = testing::small_config(GetParam());
  const ModelLoss both(config, 2, 12, 7);
  const auto values = testing::random_model(both.weights, both.layout, 24);
  ThreadPool pool(1);
  double sum = 0;
  for (int s = 0; s < 2; ++s) {
    ModelLoss alone(config, 1, 12, 7);
    std::copy_n(both.tokens.begin() + s * 12, 12, alone.tokens.begin());
    std::copy_n(both.targets.begin() + s * 12, 12, alone.targets.begin());
    sum += alone(values, nullptr, pool);
  }
  EXPECT_NEAR(both(values, nullptr, pool), sum / 2, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(AllKinds, ModelGradient,
                         ::testing::Values(Kind::kSmall, Kind::kKEqualsV, Kind::kMixture));

}  // namespace
}  // namespace carat::train
