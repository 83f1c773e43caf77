// How large the inputs of every matrix are, column by column: what an importance matrix holds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "calibrate/observed_ops.h"
#include "io/imatrix_file.h"
#include "model/weights.h"

namespace carat::calibrate {

// Sums in double, in the order in which rows are seen: the same for every number of threads.
class SquareSums final : public InputObserver {
 public:
  // `pool` outlives it and works for nobody else during a call.
  SquareSums(const model::Weights& weights, ThreadPool& pool);

  bool wants(const kernels::Weight& w) const override { return w.id >= 0; }
  // Throws Error if an input is not a finite number.
  void observe(const kernels::Weight& w, int64_t matrix, std::span<const float> rows) override;

  // Of every matrix that saw anything, by the names of GGUF files.
  std::vector<io::ImatrixEntry> entries() const;

 private:
  struct Sums {
    std::vector<double> squares;  // [matrices, columns]
    std::vector<int64_t> counts;  // [matrices]
  };
  std::vector<model::TensorRef> refs_;
  std::vector<Sums> sums_;  // by id of the weight; empty until it is seen
  ThreadPool& pool_;
};

}  // namespace carat::calibrate
