// The model's parameters, bound to the bytes of a checkpoint.
#pragma once

#include <memory>
#include <vector>

#include "io/tensor_source.h"
#include "kernels/weight.h"
#include "model/config.h"
#include "model/tensors.h"

namespace carat::model {

// Const after construction; may be shared between threads.
struct Weights {
  Config config;
  std::vector<TensorRef> refs;           // required_tensors(config)
  std::vector<kernels::Weight> all;      // same order; all[i].id == i
  std::shared_ptr<const void> storage;   // keeps the bytes alive

  // An empty Weight if the model has no such tensor.
  const kernels::Weight& at(TensorKind kind, int64_t layer = -1) const;

  // Fills the index behind at(); call once after refs and all are filled.
  void index();

 private:
  std::vector<int32_t> index_;  // [kCount][n_layers + 1] -> index in all or -1
};

}  // namespace carat::model
