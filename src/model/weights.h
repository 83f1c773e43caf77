// The model's parameters, bound to the bytes of a checkpoint.
#pragma once

#include <memory>
#include <vector>

#include "io/tensor_source.h"
#include "kernels/ops.h"
#include "kernels/weight.h"
#include "model/config.h"
#include "model/stored.h"
#include "model/tensors.h"

namespace carat::model {

// Const after construction; may be shared between threads.
struct Weights {
  Config config;
  std::vector<TensorRef> refs;          // required_tensors(config)
  std::vector<kernels::Weight> all;     // same order; all[i].id == i
  std::shared_ptr<const void> storage;  // keeps the bytes alive
  std::vector<KvScales> kv_scales;      // [n_layers] static rounding of K and V; empty: none

  // An empty Weight if the model has no such tensor.
  const kernels::Weight& at(TensorKind kind, int64_t layer = -1) const;

  // Rotation of a layer's heads.
  const kernels::Rope& rope(bool is_global) const { return is_global ? rope_global_ : rope_local_; }

  // Fills the index behind at() and the rotary frequencies; call once after config, refs and all
  // are filled.
  void index();

 private:
  std::vector<int32_t> index_;  // [kCount][n_layers + 1] -> index in all or -1
  kernels::Rope rope_local_, rope_global_;
};

// Bytes of matrices that are read from a file's mapping, all of which may become resident.
int64_t mapped_bytes(const Weights& weights);

// Inverse frequencies of one kind of layer: theta^(-2 i / head_dim) for pair i, computed in double
// and rounded to float; 0 for the pairs of a global head that do not turn.
kernels::Rope make_rope(const Config& config, bool is_global);

}  // namespace carat::model
