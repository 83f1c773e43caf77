// Inference in integers against the tape in double, which rounds the same activations as floats:
// a small model of the mobile format, with scales that clip, scales of 0, rounded keys and values.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <list>

#include "kernels/cpu/cpu_ops_testing.h"
#include "model/testing/run_forward.h"
#include "train/tape_test_util.h"

namespace carat::train {
namespace {

using kernels::test::CodedWeight;
using kernels::test::OwnedWeight;

struct MobileModel {
  model::Weights weights;
  ParameterLayout layout;
  std::vector<double> values;  // what the tape reads: code * scale without a rounding
  std::list<CodedWeight> coded;
  std::list<OwnedWeight> floats;
  std::list<std::unique_ptr<RandomAccessFile>> files;

  explicit MobileModel(uint64_t seed) {
    model::Config config = testing::small_config(testing::Kind::kSmall);
    config.tied_embeddings = false;
    config.validate();
    weights = shapes_only(config);
    layout = ParameterLayout(weights);
    values.resize(static_cast<size_t>(layout.total()));
    Rng rng(seed);
    for (size_t id = 0; id < weights.all.size(); ++id) fill(rng, static_cast<int64_t>(id));
    weights.index();
    for (int64_t i = 0; i < config.n_layers; ++i) {
      weights.kv_scales.push_back({i == 1 ? 0.0f : 0.03f, 6.0f / 127});
    }
  }

 private:
  double& value(int64_t id, int64_t i) {
    return values[static_cast<size_t>(layout[id].offset + i)];
  }

  void fill(Rng& rng, int64_t id) {
    const kernels::Weight shape = weights.all[static_cast<size_t>(id)];
    const model::TensorRef ref = weights.refs[static_cast<size_t>(id)];
    const model::TensorClass cls = model::row_of(ref.kind).cls;
    const bool looked_up =
        cls == model::TensorClass::kEmbedding || cls == model::TensorClass::kPleTable;
    if (cls == model::TensorClass::kMatrix || looked_up) {
      fill_codes(rng, id, shape, ref, cls == model::TensorClass::kPleTable, looked_up);
    } else {
      kernels::test::Floats from =
          kernels::test::normal(rng, shape.rows * shape.cols, shape.rows == 1 ? 0.2f : 0.17f);
      for (float& x : from) x += shape.rows == 1 ? 1.0f : 0.0f;
      const OwnedWeight& w = floats.emplace_back(shape.rows == 1 ? DType::kF32 : DType::kBF16, 1,
                                                 shape.rows, shape.cols, from);
      bind(id, w.weight);
      for (size_t i = 0; i < w.values.size(); ++i) value(id, static_cast<int64_t>(i)) = w.values[i];
    }
  }

  void fill_codes(Rng& rng, int64_t id, const kernels::Weight& shape, model::TensorRef ref,
                  bool is_ple, bool looked_up) {
    const DType dtype = looked_up && !is_ple                      ? DType::kC2
                        : ref.kind == model::TensorKind::kPleGate ? DType::kC8
                        : ref.layer >= 2 && rng.below(2) == 0     ? DType::kC2
                                                                  : DType::kC4;
    CodedWeight& w = coded.emplace_back(rng, dtype, 1, shape.rows, shape.cols);
    const double range = 1 << quant::code_bits(dtype);
    // Rows of about unit length; of the per-layer table a scale for each layer's columns.
    const int64_t columns = is_ple ? weights.config.ple_dim : shape.cols;
    kernels::test::Floats scales;
    for (int64_t i = 0; i < shape.rows * shape.cols / columns; ++i) {
      const double length = looked_up ? 1.0 : std::sqrt(static_cast<double>(shape.cols));
      scales.push_back(static_cast<float>((2.5 + 2 * rng.uniform()) / (range * length)));
    }
    w.set_scales(scales, columns);
    if (!looked_up && rng.below(5) != 0) {
      w.weight.input_scale = static_cast<float>(0.01 + 0.05 * rng.uniform());
      w.weight.output_scale = static_cast<float>(0.005 + 0.02 * rng.uniform());
    }
    bind(id, w.weight);
    for (int64_t i = 0; i < shape.rows * shape.cols; ++i) {
      value(id, i) = static_cast<double>(w.codes[static_cast<size_t>(i)]) *
                     scales[static_cast<size_t>(i / columns)];
    }
  }

  void bind(int64_t id, kernels::Weight w) {
    w.id = static_cast<int32_t>(id);
    weights.all[static_cast<size_t>(id)] = w;
  }
};

double distance(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  return std::sqrt(error / size);
}

std::vector<float> tape_logits(const MobileModel& m, const testing::ModelLoss& loss,
                               bool like_inference) {
  ThreadPool pool(2);
  Tape<double> tape(m.layout, m.values.data(), nullptr, pool);
  if (like_inference) tape.round_like_inference();
  const kernels::Value logits = model::forward(m.weights, tape, loss.step());
  std::vector<float> out(static_cast<size_t>(logits->rows * logits->cols));
  tape.read(logits, out);
  return out;
}

// A value next to the middle between two codes may be rounded differently by float and double, and
// all that follows differs then. That is rare: most of the models must agree as closely as floats
// do, and every one as closely as a few steps of one code allow.
TEST(MobileFormat, InferenceInIntegersAgreesWithTheTape) {
  constexpr int kModels = 15;
  std::vector<double> exact, with_codes, unrounded;
  for (uint64_t seed = 1; seed <= kModels; ++seed) {
    const MobileModel m(seed);
    const testing::ModelLoss loss(m.weights.config, 1, 9, seed + 100);
    const std::vector<float> want = tape_logits(m, loss, true);
    exact.push_back(distance(model::testing::run_forward(m.weights, loss.tokens, {}), want));
    model::testing::RunOptions codes;
    codes.kv = kernels::KvType::kI8;
    with_codes.push_back(
        distance(model::testing::run_forward(m.weights, loss.tokens, codes), want));
    unrounded.push_back(distance(tape_logits(m, loss, false), want));
    EXPECT_LT(exact.back(), 0.1);
    EXPECT_LT(with_codes.back(), 0.1);
  }
  const auto median = [](std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
  };
  EXPECT_LT(median(exact), 3e-6);
  // Queries and weights of attention have 14 bits, enough to move some codes behind them.
  EXPECT_LT(median(with_codes), 2e-2);
  // What rounding per 32 elements is worth, so that the test would see it missing.
  EXPECT_GT(median(unrounded), 3e-4);
}

// The rounding matters: the same model without the scales gives something else.
TEST(MobileFormat, ScalesAreHonoured) {
  MobileModel m(3);
  const testing::ModelLoss loss(m.weights.config, 1, 9, 103);
  const std::vector<float> want = tape_logits(m, loss, true);
  for (const char* what : {"input", "output", "kv"}) {
    model::Weights changed = m.weights;
    for (kernels::Weight& w : changed.all) {
      if (*what == 'i') w.input_scale = 0;
      if (*what == 'o') w.output_scale = 0;
    }
    if (*what == 'k') changed.kv_scales.clear();
    EXPECT_GT(distance(model::testing::run_forward(changed, loss.tokens, {}), want), 1e-3) << what;
    std::swap(changed, m.weights);
    EXPECT_GT(distance(tape_logits(m, loss, true), want), 1e-3) << what;
    std::swap(changed, m.weights);
  }
}

// Straight through the rounding, nothing through what is clipped, at either side of a product.
TEST(MobileFormat, GradientsPassWhereNothingIsClipped) {
  testing::Bench bench({{1, 1, 4}, {1, 2, 4}});
  const double x[] = {0.26, -3.0, 0.9, 127.6}, w[] = {1, 2, 3, 0, 0, 0, 0, 50};
  std::copy_n(x, 4, bench.values.begin() + bench.layout[0].offset);
  std::copy_n(w, 8, bench.values.begin() + bench.layout[1].offset);
  std::vector<double> gradients(bench.values.size());
  ThreadPool pool(1);
  Tape<double> tape(bench.layout, bench.values.data(), gradients.data(), pool);
  kernels::Weight matrix = bench.weights[1];
  matrix.input_scale = 0.5f;
  matrix.output_scale = 1.0f;
  const kernels::Value y = tape.linear(testing::table_rows(tape, bench.weights[0]), matrix);
  // Read: 0.5, -3, 1, 63.5 (clipped); given: 0.5 - 6 + 3 = -2.5 to -2, and 3175, clipped.
  EXPECT_EQ(tape.data(y)[0], -2);
  EXPECT_EQ(tape.data(y)[1], 127);
  const double direction[] = {10, 1000};
  (void)tape.project(y, direction, 1.0);
  tape.backward();
  const double* dx = gradients.data() + bench.layout[0].offset;
  const double* dw = gradients.data() + bench.layout[1].offset;
  EXPECT_EQ(std::vector(dx, dx + 4), (std::vector<double>{10, 20, 30, 0}));
  EXPECT_EQ(std::vector(dw, dw + 8), (std::vector<double>{5, -30, 10, 635, 0, 0, 0, 0}));
}

}  // namespace
}  // namespace carat::train
