#include "app/traffic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "model/footprint.h"
#include "model/forward.h"
#include "model/testing/random_model.h"

namespace carat::app {
namespace {

using kernels::Value;
using kernels::Weight;

// Computes nothing and counts the multiply-adds that it is asked for.
class CountingOps final : public kernels::Ops {
 public:
  StepMultiplyAdds sum;

  Value input(int64_t rows, int64_t cols, std::span<const float>) override {
    return make(rows, cols);
  }
  void read(const Value&, std::span<float>) override {}
  Value embed(const Weight&, std::span<const int32_t> ids, int64_t, int64_t cols, float) override {
    return make(static_cast<int64_t>(ids.size()), cols);
  }
  Value take_rows(const Value& x, std::span<const int32_t> rows) override {
    return make(static_cast<int64_t>(rows.size()), x->cols);
  }
  Value linear(const Value& x, const Weight& w) override {
    EXPECT_EQ(x->cols, w.cols);
    sum.matrices += x->rows * w.rows * w.cols;
    return make(x->rows, w.rows);
  }
  Value rms_norm(const Value& x, const Weight*, int64_t, float) override { return same(x); }
  Value rope(const Value& x, const kernels::Rope&, std::span<const kernels::RowRef>) override {
    return same(x);
  }
  Value add(const Value& a, const Value&) override { return same(a); }
  Value scale(const Value& x, float) override { return same(x); }
  Value scale_by(const Value& x, const Weight&) override { return same(x); }
  Value geglu(const Value& gate, const Value&) override { return same(gate); }
  Value softcap(const Value& x, float) override { return same(x); }
  Value attention(const Value& q, const Value&, const Value&,
                  const kernels::AttentionCall& call) override {
    for (const kernels::RowRef& row : call.q_rows) {
      int64_t keys = 0;
      for (int64_t p = 0; p <= row.position; ++p) {
        keys += call.window == 0 || p > row.position - call.window;
      }
      sum.attention += 2 * call.n_heads * call.head_dim * keys;
    }
    return same(q);
  }
  kernels::Route route(const Value& logits, const Weight&, int64_t top_k) override {
    return {make(logits->rows, top_k), nullptr};
  }
  Value experts(const Value& x, const kernels::Route& route, const Weight& gate_up,
                const Weight& down) override {
    sum.matrices +=
        x->rows * route.weights->cols * (gate_up.rows * gate_up.cols + down.rows * down.cols);
    return same(x);
  }

 private:
  static Value make(int64_t rows, int64_t cols) {
    auto value = std::make_shared<kernels::ValueBase>();
    value->rows = rows;
    value->cols = cols;
    return value;
  }
  static Value same(const Value& x) { return make(x->rows, x->cols); }
};

model::Model tiny_model(const char* size) {
  model::Model m;
  m.weights = model::testing::random_weights(model::config_of_size(size), DType::kF32, DType::kF32);
  return m;
}

// What the forward pass asks of Ops for the same tokens in chunks.
StepMultiplyAdds count(const model::Model& m, int64_t first, int64_t n, int64_t wanted,
                       int64_t chunk) {
  CountingOps ops;
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t rows = std::min(chunk, n - begin);
    const std::vector<int32_t> tokens(static_cast<size_t>(rows), 1);
    std::vector<kernels::RowRef> refs;
    std::vector<int32_t> asked;
    for (int64_t i = 0; i < rows; ++i) {
      refs.push_back({0, static_cast<int32_t>(first + begin + i)});
      if (begin + i >= n - wanted) asked.push_back(static_cast<int32_t>(i));
    }
    model::Step step;
    step.tokens = tokens;
    step.rows = refs;
    step.wanted = asked;
    (void)model::forward(m.weights, ops, step);
  }
  return ops.sum;
}

TEST(Traffic, CountsTheMultiplyAddsThatTheForwardPassMakes) {
  struct Case {
    int64_t first, n, wanted, chunk;
  };
  const Case cases[] = {{0, 1, 1, 1},    {0, 40, 1, 40},  {0, 40, 1, 7},
                        {0, 40, 40, 16}, {90, 13, 5, 13}, {200, 33, 1, 8}};
  for (const char* size : {"tiny", "tinykv", "tinymoe"}) {
    const model::Model m = tiny_model(size);
    for (const Case& c : cases) {
      const StepMultiplyAdds expected = count(m, c.first, c.n, c.wanted, c.chunk);
      const StepMultiplyAdds got = prefill_multiply_adds(m, c.first, c.n, c.wanted);
      EXPECT_EQ(got.matrices, expected.matrices) << size << " " << c.first << " " << c.n;
      EXPECT_EQ(got.attention, expected.attention) << size << " " << c.first << " " << c.n;
    }
  }
}

TEST(Traffic, SequencesShareWeightsButNotKeys) {
  const model::Model m = tiny_model("tiny");
  const StepBytes one = decode_step_bytes(m, kernels::KvType::kI8, 100);
  const StepBytes four = decode_step_bytes(m, kernels::KvType::kI8, 100, 4);
  EXPECT_EQ(four.kv_local, 4 * one.kv_local);
  EXPECT_EQ(four.kv_global, 4 * one.kv_global);
  EXPECT_GT(four.weights, one.weights);  // rows of the tables
  EXPECT_LT(four.weights, 2 * one.weights);
  // Local layers stop growing at their window, global ones do not.
  const StepBytes far = decode_step_bytes(m, kernels::KvType::kI8, 10000);
  const StepBytes farther = decode_step_bytes(m, kernels::KvType::kI8, 20000);
  EXPECT_EQ(far.kv_local, farther.kv_local);
  EXPECT_LT(far.kv_global, farther.kv_global);
  // Of 16 elements int4 reads 9 bytes for int8's 16, and as large a scale.
  const StepBytes half = decode_step_bytes(m, kernels::KvType::kI4, 10000);
  const int64_t scales = 10001 * 2 * m.config().layer(m.config().n_layers - 1).n_kv_heads * 4;
  int64_t global_layers = 0;
  for (int64_t i = 0; i < m.config().n_layers; ++i) {
    global_layers += m.config().layer(i).is_global;
  }
  EXPECT_EQ((half.kv_global - global_layers * scales) * 16,
            (far.kv_global - global_layers * scales) * 9);
}

TEST(Traffic, CodesBringTheirScalesAndTheOutputMatrixIsReadOnce) {
  model::Config config = model::config_of_size("tinykv");
  const auto weights_read = [&](DType dtype, int64_t scale_columns) {
    model::Model m;
    m.weights = model::weights_of_shape(config, [&](model::TensorRef ref) -> model::StoredType {
      const bool coded = model::row_of(ref.kind).cls != model::TensorClass::kKeep;
      return coded ? model::StoredType{dtype, scale_columns, DType::kF16} : model::StoredType{};
    });
    return decode_step_bytes(m, kernels::KvType::kI8, 0).weights;
  };
  // 4 bits and a scale of 2 bytes per 32 are what a block of Q4_0 takes.
  EXPECT_EQ(weights_read(DType::kC4, 32), weights_read(DType::kQ4_0, 0));
  EXPECT_GT(weights_read(DType::kC8, 32), weights_read(DType::kC4, 32));
  // The token embedding is only looked up when there is a matrix of its shape for the output.
  const int64_t tied = weights_read(DType::kQ4_0, 0);
  config.tied_embeddings = false;
  EXPECT_EQ(weights_read(DType::kQ4_0, 0), tied);
}

}  // namespace
}  // namespace carat::app
