#include "train/fake_quant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/half.h"
#include "quant/q4_0.h"
#include "train/tape_test_util.h"

namespace carat::train {
namespace {

using testing::Kind;
using testing::ModelLoss;

// Blocks of many sizes and shapes: heavy tails, exact ties, zeros, subnormal scales.
std::vector<std::vector<float>> sample_blocks() {
  std::vector<std::vector<float>> blocks;
  Rng rng(3);
  for (int i = 0; i < 3000; ++i) {
    std::vector<float> b(32);
    const double size = std::pow(10.0, -6 + 8 * rng.uniform());
    for (float& x : b) {
      const double z = rng.normal();
      x = static_cast<float>(size * (i % 3 == 0 ? z * z * z : z));
    }
    if (i % 7 == 0) b[5] = -b[9];
    if (i % 11 == 0) std::fill(b.begin() + 3, b.end(), 0.0f);
    blocks.push_back(b);
  }
  blocks.emplace_back(32, 0.0f);
  blocks.emplace_back(32, 1.0f);
  blocks.emplace_back(32, -0.5f);
  return blocks;
}

TEST(FakeQuant, PlainQuantizationOfTheBf16ExportGivesTheTrainedValues) {
  for (const auto& block : sample_blocks()) {
    float trained[32];
    uint8_t codes[32];
    const float d = fake_quant_block(block.data(), trained, codes);
    // The scale fits both 16-bit types.
    ASSERT_EQ(to_float(to_bf16(d)), d);
    ASSERT_EQ(to_float(to_f16(d)), d);

    float exported[32];
    for (int i = 0; i < 32; ++i) exported[i] = to_float(to_bf16(trained[i]));
    const quant::BlockQ4_0 stored = quant::encode_block_q4_0(exported);
    float decoded[32];
    quant::decode_block_q4_0(stored, decoded);
    for (int i = 0; i < 32; ++i) {
      ASSERT_EQ(decoded[i], trained[i]);
      if (d != 0) {
        ASSERT_EQ(quant::code_of(stored, i), codes[i]);
      }
    }
  }
}

TEST(FakeQuant, ErrorIsAtMostHalfAStepOfTheLattice) {
  for (const auto& block : sample_blocks()) {
    float values[32];
    const float d = fake_quant_block(block.data(), values, nullptr);
    if (std::fabs(d) < 0x1p-14f) continue;  // subnormal in binary16: the scale itself is coarse
    for (int i = 0; i < 32; ++i) {
      // Beyond code 15 (7 steps) the value is clipped: up to one step, and the scale's rounding.
      const float u = block[static_cast<size_t>(i)] / d;
      const float limit = u > 7 ? 1.05f : u < -7.5f ? 0.55f : 0.5001f;
      EXPECT_LE(std::fabs(values[i] - block[static_cast<size_t>(i)]), limit * std::fabs(d));
    }
  }
}

TEST(FakeQuant, TakesMatricesAndRoundsTheRest) {
  const model::Weights w = shapes_only(testing::small_config(Kind::kSmall));
  const ParameterLayout layout(w);
  const auto values = testing::cast<float>(testing::random_model(w, layout, 9));
  std::vector<float> one(values.size()), many(values.size());
  ThreadPool pool1(1), pool3(3);
  fake_quant(layout, values.data(), one.data(), pool1);
  fake_quant(layout, values.data(), many.data(), pool3);
  EXPECT_EQ(one, many);
  for (size_t id = 0; id < w.all.size(); ++id) {
    const auto& e = layout[static_cast<int64_t>(id)];
    const bool keep = model::row_of(w.refs[id].kind).cls == model::TensorClass::kKeep;
    ASSERT_EQ(e.matrix, !keep);
    for (int64_t i = e.offset; i < e.offset + e.size; i += keep ? 1 : 32) {
      float want[32];
      if (keep) {
        want[0] = to_float(to_bf16(values[static_cast<size_t>(i)]));
      } else {
        fake_quant_block(values.data() + i, want, nullptr);
      }
      ASSERT_EQ(0, std::memcmp(want, one.data() + i, (keep ? 1 : 32) * sizeof(float)));
    }
  }
}

// Rounding has no derivative. With the residual w_hat - w held fixed the loss is smooth in w, and
// its gradient is what the straight-through rule says: the gradient at w_hat, clipped weights too.
TEST(FakeQuant, StraightThroughGradientIsThatOfFrozenResiduals) {
  for (const Kind kind : {Kind::kSmall, Kind::kKEqualsV}) {
    const ModelLoss loss(testing::small_config(kind), 2, 8, 31);
    const auto w = testing::cast<float>(testing::random_model(loss.weights, loss.layout, 32));
    ThreadPool pool(1);
    std::vector<float> quantized(w.size());
    fake_quant(loss.layout, w.data(), quantized.data(), pool);
    std::vector<float> g(w.size(), 0.0f);
    loss(quantized, &g, pool);

    std::vector<double> direction(w.size(), 0.0), v(w.size());
    Rng rng(33);
    double want = 0;
    for (const auto& e : loss.layout.entries()) {
      for (int64_t i = e.offset; i < e.offset + e.size; ++i) {
        direction[static_cast<size_t>(i)] = 0.1 * rng.normal();
        want += direction[static_cast<size_t>(i)] * g[static_cast<size_t>(i)];
      }
    }
    const auto at = [&](double h) {
      for (size_t i = 0; i < v.size(); ++i) {
        const double residual = static_cast<double>(quantized[i]) - static_cast<double>(w[i]);
        v[i] = (static_cast<double>(w[i]) + h * direction[i]) + residual;
      }
      return loss(v, nullptr, pool);
    };
    const double h = 1e-3;
    const double fd = (8 * (at(h / 2) - at(-h / 2)) - (at(h) - at(-h))) / (6 * h);
    EXPECT_NEAR(fd, want, 1e-4 * std::fabs(want));
  }
}

TEST(FakeQuant, RefusesRowsThatAreNoWholeBlocks) {
  model::Config config = testing::small_config(Kind::kSmall);
  config.ffn_dim = 40;
  EXPECT_THROW(check_quantizable(shapes_only(config)), Error);
}

}  // namespace
}  // namespace carat::train
