#include "quantize/cost_model.h"

#include <gtest/gtest.h>

#include <cmath>

namespace carat::quantize {
namespace {

using model::TensorKind;

MatrixChoices matrix(TensorKind kind, int64_t layer, double scale) {
  MatrixChoices m;
  m.plan.ref = {kind, layer};
  m.plan.shape = {32, 256};
  m.types = {{DType::kQ2_K, 2688, 16 * scale, 0},
             {DType::kQ4_0, 4608, 2 * scale, 0},
             {DType::kQ5_0, 5632, 0.5 * scale, 0},
             {DType::kQ8_0, 8704, 0.01 * scale, 0},
             {DType::kF16, 16384, 0.0001 * scale, 0}};
  return m;
}

std::vector<Pick> picks_of(size_t n, size_t m, size_t choice) {
  std::vector<Pick> picks(n);
  picks[m] = choice;
  return picks;
}

TEST(CostModel, ReadsTypesOffLinesBetweenMeasuredOnes) {
  const std::vector<MatrixChoices> choices = {matrix(TensorKind::kQ, 0, 1)};
  CostModel model(choices, make_groups(choices, 10));
  model.add_alone(0, picks_of(1, 0, 1), 0.020);
  model.add_alone(0, picks_of(1, 0, 3), 0.002);
  EXPECT_DOUBLE_EQ(model.cost(0, 1), 0.020);
  EXPECT_DOUBLE_EQ(model.cost(0, 3), 0.002);
  EXPECT_NEAR(model.cost(0, 2), 0.002 + 0.018 * (0.5 - 0.01) / (2 - 0.01), 1e-12);
  EXPECT_NEAR(model.cost(0, 0), 0.020 * 16 / 2, 1e-12);
  // Floats round no inputs: what is left at Q8_0 is not theirs.
  EXPECT_NEAR(model.cost(0, 4), 0.020 * 0.0001 / 2, 1e-12);
}

TEST(CostModel, NothingIsPredictedBelowZero) {
  const std::vector<MatrixChoices> choices = {matrix(TensorKind::kQ, 0, 1)};
  // What rounding may leave below 0, and sums of a file that lies.
  for (const double kld : {-3.1e-20, -0.5, 0.0}) {
    for (const size_t where : {1u, 3u}) {
      CostModel model(choices, make_groups(choices, 10));
      model.add_alone(0, picks_of(1, 0, where), kld);
      model.add_alone(0, picks_of(1, 0, 4 - where), 0.002);
      for (size_t c = 0; c < choices[0].types.size(); ++c) {
        EXPECT_GE(model.cost(0, c), 0) << c;
        EXPECT_FALSE(std::signbit(model.cost(0, c))) << c;
        EXPECT_TRUE(std::isfinite(model.cost(0, c))) << c;
      }
    }
  }
}

TEST(CostModel, ScalesToMixesAndIsCorrectedByChanges) {
  const std::vector<MatrixChoices> choices = {matrix(TensorKind::kQ, 0, 1),
                                              matrix(TensorKind::kK, 0, 1)};
  CostModel model(choices, make_groups(choices, 10));
  const size_t q = model.groups()[0][0] == 0 ? 0 : 1;
  model.add_alone(q, picks_of(2, 0, 1), 0.02);
  model.add_alone(1 - q, picks_of(2, 1, 1), 0.02);
  const std::vector<size_t> mix = {1, 1}, up = {2, 1}, other = {1, 2};
  model.add_mix(mix, 0.06);
  EXPECT_DOUBLE_EQ(model.predict(mix), 0.06);
  const double before = model.predict(mix) - model.predict(up);
  // Measured exactly, the first gains twice what was predicted; the second is hardly known.
  const std::vector<CostModel::Change> changes = {{q, mix, up, 2 * before, 1e-9},
                                                  {1 - q, mix, other, 0, 10}};
  model.add_changes(changes);
  EXPECT_NEAR(model.predict(mix) - model.predict(up), 2 * before, 1e-6);
  EXPECT_NEAR(model.predict(mix) - model.predict(other), before, 1e-4);
}

TEST(CostModel, GroupsShareWhatIsMeasuredByTheirErrors) {
  std::vector<MatrixChoices> choices;
  for (int64_t layer = 0; layer < 6; ++layer) {
    choices.push_back(matrix(TensorKind::kQ, layer, 1));
    choices.push_back(matrix(TensorKind::kDown, layer, 3));
  }
  choices.push_back(matrix(TensorKind::kTokenEmbedding, -1, 1));
  EXPECT_EQ(make_groups(choices, 13).size(), 13u);
  const auto groups = make_groups(choices, 5);
  ASSERT_EQ(groups.size(), 5u);  // two kinds in two halves, and the table
  size_t members = 0;
  for (const auto& g : groups) members += g.size();
  EXPECT_EQ(members, choices.size());
  EXPECT_EQ(make_groups(choices, 1).size(), 3u);

  const std::vector<MatrixChoices> two = {matrix(TensorKind::kQ, 0, 1),
                                          matrix(TensorKind::kQ, 1, 3)};
  CostModel model(two, make_groups(two, 1));
  ASSERT_EQ(model.groups().size(), 1u);
  const std::vector<Pick> picks = {1, 1};
  model.add_alone(0, picks, 0.04);
  EXPECT_NEAR(model.cost(0, 1), 0.01, 1e-12);
  EXPECT_NEAR(model.cost(1, 1), 0.03, 1e-12);
}

}  // namespace
}  // namespace carat::quantize
