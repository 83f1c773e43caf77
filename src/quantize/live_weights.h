// A model some of whose matrices were replaced, to compute with as it will be.
#pragma once

#include <cstddef>
#include <vector>

#include "base/file.h"
#include "model/weights.h"
#include "quantize/job.h"

namespace carat::quantize {

// Used by one thread at a time.
class LiveWeights {
 public:
  // The bytes of `source` outlive it.
  explicit LiveWeights(const model::Weights& source) : weights_(source), own_(source.all.size()) {}

  const model::Weights& weights() const { return weights_; }

  // Puts rows of `dtype` in the place of a matrix's (of all experts one behind the other): the
  // number that the shape asks for, or it is a bug. Static rounding of its inputs and outputs ends.
  void replace(model::TensorRef ref, DType dtype, std::vector<std::byte> rows);
  // The same for a table of which only rows are looked up: they are read from the file, which
  // outlives this. No product may use it.
  void replace_looked_up(model::TensorRef ref, DType dtype, const RandomAccessFile& file,
                         int64_t offset);
  // The source's own again.
  void restore(model::TensorRef ref);

 private:
  kernels::Weight& begin(model::TensorRef ref, DType dtype);

  model::Weights weights_;
  std::vector<std::vector<std::byte>> own_;  // by id
  std::vector<kernels::Weight> before_;      // by id, once something was replaced
};

// From here on the network computes with the rows that the job's store has of the matrix.
void use_encoded(const Job& job, const MatrixPlan& matrix, LiveWeights& live);
// The same where no product will use it and only rows are looked up: they stay in the store.
void look_up_encoded(const Job& job, const MatrixPlan& matrix, LiveWeights& live);

}  // namespace carat::quantize
