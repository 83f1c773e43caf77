// The tape computes what inference computes: the same weights and tokens, two implementations.
#include <gtest/gtest.h>

#include <cmath>

#include "model/testing/run_forward.h"
#include "train/tape_test_util.h"

namespace carat::train {
namespace {

using testing::Kind;

TEST(Tape, AgreesWithInferenceOnAllKinds) {
  for (const Kind kind : {Kind::kSmall, Kind::kKEqualsV, Kind::kMixture}) {
    const testing::ModelLoss loss(testing::small_config(kind), 1, 40, 61);
    const auto values = testing::cast<float>(testing::random_model(loss.weights, loss.layout, 62));
    ThreadPool pool(2);
    Tape<float> tape(loss.layout, values.data(), nullptr, pool);
    const kernels::Value logits = model::forward(loss.weights, tape, loss.step());
    std::vector<float> got(static_cast<size_t>(logits->rows * logits->cols));
    tape.read(logits, got);

    model::Weights bound = loss.weights;
    for (kernels::Weight& w : bound.all) {
      w.data = reinterpret_cast<const std::byte*>(values.data() + loss.layout[w.id].offset);
    }
    const std::vector<float> want = model::testing::run_forward(bound, loss.tokens, {});
    ASSERT_EQ(got.size(), want.size());
    double error = 0, size = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error += (got[i] - want[i]) * (got[i] - want[i]);
      size += want[i] * want[i];
    }
    EXPECT_LT(std::sqrt(error / size), 1e-5);
  }
}

}  // namespace
}  // namespace carat::train
