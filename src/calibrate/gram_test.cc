#include "calibrate/gram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>

#include "base/error.h"
#include "base/rng.h"
#include "calibrate/importance.h"
#include "kernels/cpu/dispatch.h"
#include "model/testing/random_model.h"

namespace carat::calibrate {
namespace {

using model::TensorKind;

class Grams : public testing::TestWithParam<const char*> {
 protected:
  Grams()
      : weights_(model::testing::random_weights(model::config_of_size(GetParam()), DType::kQ4_0,
                                                DType::kF32)) {
    Rng rng(8);
    std::vector<int32_t> text;
    for (int i = 0; i < 150; ++i) {
      text.push_back(
          static_cast<int32_t>(rng.below(static_cast<uint64_t>(weights_.config.vocab_size))));
    }
    chunks_ = calibration_chunks(text, 2, {.context = 64});
  }

  void read(InputObserver& observer, int64_t layers, int threads = 1) {
    ThreadPool pool(threads);
    ReadCall call;
    call.weights = &weights_;
    call.chunks = chunks_;
    call.layers = layers;
    read_chunks(call, observer, pool, kernels::choose_kernels());
  }

  model::Weights weights_;
  std::vector<std::vector<int32_t>> chunks_;
};

TEST_P(Grams, PassesCoverEveryMatrixOnceWithinTheBudget) {
  for (const int64_t budget : {int64_t{3} << 20, int64_t{1} << 26}) {
    std::set<std::pair<std::string, int64_t>> seen;
    for (const GramPass& pass : plan_grams(weights_, budget)) {
      EXPECT_LE(pass.bytes, budget);
      for (const GramPart& part : pass.parts) {
        for (int64_t m = part.first; m < part.first + part.n; ++m) {
          EXPECT_TRUE(seen.insert({model::gguf_name(part.input), m}).second);
        }
      }
    }
    for (const kernels::Weight& w : weights_.all) {
      const model::TensorRef ref = weights_.refs[static_cast<size_t>(w.id)];
      const auto cls = model::row_of(ref.kind).cls;
      if (cls == model::TensorClass::kKeep || cls == model::TensorClass::kPleTable) continue;
      for (int64_t m = 0; m < w.count; ++m) {
        EXPECT_TRUE(seen.contains({model::gguf_name(input_of(ref)), m})) << model::gguf_name(ref);
      }
    }
  }
  EXPECT_THROW((void)plan_grams(weights_, 1000), Error);
}

TEST_P(Grams, AreSumsOfProductsWhateverThePassesAndThreads) {
  const auto small = plan_grams(weights_, int64_t{3} << 20);
  const auto large = plan_grams(weights_, int64_t{1} << 30);
  ASSERT_EQ(large.size(), 1u);
  ASSERT_GT(small.size(), 1u);
  ThreadPool pool(3);
  GramSums all(large[0], weights_, pool);
  read(all, large[0].layers, 3);
  SquareSums squares(weights_, pool);
  read(squares, -1);
  io::Imatrix importance;
  importance.entries = squares.entries();
  ThreadPool one(1);
  for (const GramPass& pass : small) {
    GramSums some(pass, weights_, one);
    read(some, pass.layers);
    for (const GramPart& part : pass.parts) {
      for (int64_t m = part.first; m < part.first + part.n; ++m) {
        const Gram* a = some.find(part.input, m);
        const Gram* b = all.find(part.input, m);
        ASSERT_TRUE(a != nullptr && b != nullptr);
        EXPECT_EQ(a->count, b->count);
        EXPECT_TRUE(a->values == b->values) << model::gguf_name(part.input);
        const io::ImatrixEntry* e = importance.find(model::gguf_name(part.input));
        if (e == nullptr) continue;  // experts that saw nothing
        const int64_t n = b->columns;
        EXPECT_EQ(static_cast<float>(b->count), e->counts[static_cast<size_t>(m)]);
        for (int64_t i = 0; i < n; ++i) {
          const float square = e->sums[static_cast<size_t>(m * n + i)];
          EXPECT_NEAR(b->values[static_cast<size_t>(i * n + i)], square, 1e-5 * square + 1e-9);
          for (int64_t j = 0; j < i; ++j) {
            const double ij = b->values[static_cast<size_t>(i * n + j)];
            EXPECT_EQ(ij, b->values[static_cast<size_t>(j * n + i)]);
            EXPECT_LE(ij * ij, 1.001 * b->values[static_cast<size_t>(i * n + i)] *
                                       b->values[static_cast<size_t>(j * n + j)] +
                                   1e-12);
          }
        }
      }
    }
  }
}

TEST_P(Grams, AMatrixFindsTheInputThatItShares) {
  const auto plan = plan_grams(weights_, int64_t{1} << 30);
  ThreadPool pool(1);
  const GramSums sums(plan[0], weights_, pool);
  EXPECT_EQ(sums.find({TensorKind::kK, 0}), sums.find({TensorKind::kQ, 0}));
  EXPECT_EQ(sums.find({TensorKind::kUp, 0}), sums.find({TensorKind::kGate, 0}));
  EXPECT_NE(sums.find({TensorKind::kO, 0}), sums.find({TensorKind::kQ, 0}));
  EXPECT_NE(sums.find({TensorKind::kO, 0}), sums.find({TensorKind::kO, 1}));
}

INSTANTIATE_TEST_SUITE_P(Sizes, Grams, testing::Values("tiny", "tinymoe"));

// Products of given rows.
TEST(Gram, OfRowsByHand) {
  const model::Weights w =
      model::testing::random_weights(model::config_of_size("tiny"), DType::kF32, DType::kF32);
  const model::TensorRef q{TensorKind::kQ, 0};
  const kernels::Weight& weight = w.at(q.kind, q.layer);
  ThreadPool pool(2);
  GramSums sums({{{q, 0, 1}}, 1, 0}, w, pool);
  std::vector<float> rows(static_cast<size_t>(2 * weight.cols));
  rows[0] = 3;
  rows[1] = -2;
  rows[static_cast<size_t>(weight.cols) + 1] = 5;
  sums.observe(weight, 0, rows);
  const Gram& gram = *sums.find(q);
  const auto n = static_cast<size_t>(gram.columns);
  EXPECT_EQ(gram.count, 2);
  EXPECT_EQ(gram.values[0], 9);
  EXPECT_EQ(gram.values[1], -6);
  EXPECT_EQ(gram.values[n], -6);
  EXPECT_EQ(gram.values[n + 1], 4 + 25);
  EXPECT_EQ(gram.values[n + 2], 0);
}

}  // namespace
}  // namespace carat::calibrate
