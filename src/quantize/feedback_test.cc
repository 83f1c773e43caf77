// Error feedback on random matrices with correlated inputs.
#include "quantize/feedback.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"
#include "quant/grid.h"
#include "quant/scheme.h"

namespace carat::quantize {
namespace {

using Floats = std::vector<float>;

// Rows of inputs whose columns share a few directions, and differ in size.
Floats correlated_inputs(int64_t n, int64_t columns, uint64_t seed) {
  Rng rng(seed);
  constexpr int64_t kShared = 12;
  Floats mix(static_cast<size_t>(kShared * columns));
  for (float& v : mix) v = static_cast<float>(rng.normal());
  Floats x(static_cast<size_t>(n * columns));
  for (int64_t t = 0; t < n; ++t) {
    float z[kShared];
    for (float& v : z) v = static_cast<float>(rng.normal());
    for (int64_t c = 0; c < columns; ++c) {
      float sum = 0.5f * static_cast<float>(rng.normal());
      for (int64_t k = 0; k < kShared; ++k) sum += z[k] * mix[static_cast<size_t>(k * columns + c)];
      x[static_cast<size_t>(t * columns + c)] = sum * (c % 7 == 0 ? 4.0f : 1.0f);
    }
  }
  return x;
}

calibrate::Gram gram_of(const Floats& x, int64_t columns) {
  calibrate::Gram gram;
  gram.columns = columns;
  gram.count = static_cast<int64_t>(x.size()) / columns;
  gram.values.resize(static_cast<size_t>(columns * columns));
  for (size_t t = 0; t < x.size(); t += static_cast<size_t>(columns)) {
    for (int64_t i = 0; i < columns; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        gram.values[static_cast<size_t>(i * columns + j)] +=
            double{x[t + static_cast<size_t>(i)]} * x[t + static_cast<size_t>(j)];
      }
    }
  }
  return gram;
}

struct Layer {
  int64_t rows, columns;
  Floats weights, inputs;

  Layer(int64_t r, int64_t c, uint64_t seed)
      : rows(r),
        columns(c),
        weights(static_cast<size_t>(r * c)),
        inputs(correlated_inputs(2 * c, c, seed)) {
    Rng rng(seed + 1);
    for (float& v : weights) v = static_cast<float>(rng.normal() * 0.05);
  }

  Factor factor(double damping, int threads = 1) const {
    ThreadPool pool(threads);
    return Factor(gram_of(inputs, columns), damping, pool);
  }
  FeedbackCall call(DType dtype, std::vector<std::byte>& out) const {
    out.assign(static_cast<size_t>(rows * row_bytes(dtype, columns)), std::byte{0});
    return {dtype, rows, columns, weights.data(), out.data()};
  }
  // |(W - Q) X|^2 by the plain loop.
  double lost(DType dtype, const std::vector<std::byte>& out) const {
    Floats q(weights.size());
    quant::decode_row(dtype, out.data(), q.data(), rows * columns);
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) {
      for (size_t t = 0; t < inputs.size(); t += static_cast<size_t>(columns)) {
        double y = 0;
        for (int64_t c = 0; c < columns; ++c) {
          const auto i = static_cast<size_t>(r * columns + c);
          y += (double{weights[i]} - q[i]) * inputs[t + static_cast<size_t>(c)];
        }
        sum += y * y;
      }
    }
    return sum;
  }
};

TEST(Factor, IsTheDecompositionOfGramAndDamping) {
  for (const int64_t n : {1, 5, 64, 65, 600}) {
    ThreadPool pool(2);
    const Floats x = correlated_inputs(2 * n + 3, n, 9);
    const calibrate::Gram gram = gram_of(x, n);
    std::vector<double> h = gram.values;
    const Factor f(gram, 0.01, pool);
    for (int64_t i = 0; i < n; ++i) h[static_cast<size_t>(i * (n + 1))] += f.damping();
    double worst = 0;
    for (int64_t i = 0; i < n; i += 1 + n / 37) {
      for (int64_t j = 0; j < n; j += 1 + n / 41) {
        double sum = 0;
        for (int64_t k = std::max(i, j); k < n; ++k) {
          const double a = k == i ? 1 : f.row(i)[k], b = k == j ? 1 : f.row(j)[k];
          sum += a * b * f.d(k);
        }
        const double size =
            std::sqrt(h[static_cast<size_t>(i * (n + 1))] * h[static_cast<size_t>(j * (n + 1))]);
        worst = std::max(worst, std::fabs(sum - h[static_cast<size_t>(i * n + j)]) / size);
      }
    }
    EXPECT_LT(worst, 3e-6) << n;
  }
}

TEST(Factor, SurvivesInputsThatDependOnEachOtherAndNoInputs) {
  ThreadPool pool(1);
  const Factor f(gram_of(correlated_inputs(3, 96, 2), 96), 1e-9, pool);  // of rank 3
  for (int64_t i = 0; i < 96; ++i) EXPECT_GT(f.d(i), 0);
  const Factor none(gram_of({}, 40), 0.01, pool);
  for (int64_t i = 0; i < 40; ++i) {
    EXPECT_EQ(none.d(i), 1.0f);
    for (int64_t j = i + 1; j < 40; ++j) EXPECT_EQ(none.row(i)[j], 0.0f);
  }
}

TEST(Feedback, LosesLessOfTheOutputsThanRounding) {
  const Layer layer(24, 512, 5);
  ThreadPool pool(2);
  const Factor factor = layer.factor(0.01);
  Floats importance(512);
  for (size_t i = 0; i < layer.inputs.size(); ++i) {
    importance[i % 512] += layer.inputs[i] * layer.inputs[i];
  }
  for (const DTypeInfo& type : all_dtypes()) {
    if (!quant::has_grid(type.dtype)) continue;
    std::vector<std::byte> rounded, weighted, fed;
    const FeedbackCall plain = layer.call(type.dtype, rounded);
    quant::encode_row(type.dtype, layer.weights.data(), rounded.data(), 24 * 512);
    const OutputError of_rounding = output_error(plain, factor, pool);
    const OutputError of_weighted =
        encode_by_weight(layer.call(type.dtype, weighted), factor, importance, pool);
    const OutputError of_feedback = encode_with_feedback(layer.call(type.dtype, fed), factor, pool);
    // The figures are what the plain loop finds.
    EXPECT_NEAR(of_rounding.lost / layer.lost(type.dtype, rounded), 1, 1e-3) << type.name;
    EXPECT_NEAR(of_weighted.lost / layer.lost(type.dtype, weighted), 1, 1e-3) << type.name;
    EXPECT_NEAR(of_feedback.lost / layer.lost(type.dtype, fed), 1, 1e-3) << type.name;
    EXPECT_EQ(of_rounding.whole, of_feedback.whole);
    EXPECT_LT(of_feedback.lost, 0.35 * of_rounding.lost) << type.name;
    EXPECT_LT(of_feedback.lost, 0.4 * of_weighted.lost) << type.name;
  }
}

TEST(Feedback, WithoutCorrelationItIsRounding) {
  Layer layer(8, 512, 6);
  // Every column in a row of its own: the Gram matrix is the identity.
  layer.inputs.assign(512 * 512, 0.0f);
  for (size_t i = 0; i < 512; ++i) layer.inputs[i * 513] = 1.0f;
  const Factor factor = layer.factor(0.01);
  ThreadPool pool(1);
  const Floats ones(512, 1.0f);
  for (const DTypeInfo& type : all_dtypes()) {
    if (!quant::has_grid(type.dtype)) continue;
    std::vector<std::byte> rounded, fed;
    encode_by_weight(layer.call(type.dtype, rounded), factor, ones, pool);
    encode_with_feedback(layer.call(type.dtype, fed), factor, pool);
    EXPECT_TRUE(rounded == fed) << type.name;
  }
}

TEST(Feedback, IsTheSameForEveryNumberOfThreads) {
  const Layer layer(21, 768, 7);
  for (const DType type : {DType::kQ4_0, DType::kQ3_K}) {
    std::vector<std::byte> first;
    for (const int threads : {1, 5}) {
      ThreadPool pool(threads);
      const Factor factor = layer.factor(0.01, threads);
      std::vector<std::byte> out;
      encode_with_feedback(layer.call(type, out), factor, pool);
      if (first.empty()) first = out;
      EXPECT_TRUE(out == first) << threads;
    }
  }
}

}  // namespace
}  // namespace carat::quantize
