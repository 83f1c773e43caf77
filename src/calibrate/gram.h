// Which directions the inputs of matrices have: X^T X of each input, as methods that correct the
// rounding of one column by the columns after it want it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "calibrate/observed_ops.h"
#include "calibrate/read_text.h"
#include "model/weights.h"

namespace carat::calibrate {

// Q, K and V of a layer read one input, gate and up another: the matrix that stands for all of
// them.
[[nodiscard]] model::TensorRef input_of(model::TensorRef matrix);

// X^T X summed over inputs.
struct Gram {
  int64_t columns = 0;
  int64_t count = 0;           // inputs
  std::vector<double> values;  // [columns, columns], symmetric
};

// Inputs that are summed in one reading of the text: matrices [first, first + n) of a tensor.
struct GramPart {
  model::TensorRef input;  // as input_of gives it
  int64_t first = 0, n = 1;
};
struct GramPass {
  std::vector<GramPart> parts;
  int64_t layers = -1;  // as ReadCall has it
  int64_t bytes = 0;    // of the sums, and of working memory
};

// All inputs of matrices that quantization may touch, in the order in which they are computed, in
// as few readings as the budget allows. Throws Error if one input alone does not fit it.
[[nodiscard]] std::vector<GramPass> plan_grams(const model::Weights& weights, int64_t budget_bytes);

// Sums what a pass asks for. Products in float32 over at most 512 inputs at a time, their sums in
// float64: the same for every number of threads, and whatever else the pass holds.
class GramSums final : public InputObserver {
 public:
  // `pool` outlives it and works for nobody else during a call.
  GramSums(const GramPass& pass, const model::Weights& weights, ThreadPool& pool);

  bool wants(const kernels::Weight& w) const override;
  void observe(const kernels::Weight& w, int64_t matrix, std::span<const float> rows) override;

  // Of the input of any matrix; null if the pass did not ask for it. A matrix that saw nothing has
  // count 0.
  const Gram* find(model::TensorRef matrix, int64_t index = 0) const;

 private:
  const model::Weights& weights_;
  ThreadPool& pool_;
  std::map<std::pair<int32_t, int64_t>, Gram> grams_;  // by id of the weight and matrix
  std::vector<float> stripe_;
};

}  // namespace carat::calibrate
