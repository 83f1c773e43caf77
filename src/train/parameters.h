// The model's parameters as one flat array, in the order of Weight::id.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/weight.h"
#include "model/weights.h"

namespace carat::train {

// Where each parameter lies in a flat array. Every parameter begins at a multiple of 16 elements;
// the gaps belong to nobody and stay zero.
class ParameterLayout {
 public:
  struct Entry {
    int64_t offset = 0;
    int64_t size = 0;  // count * rows * cols
    int64_t cols = 0;
    bool matrix = false;  // a linear layer, embedding or expert, as opposed to norms and scalars
  };

  ParameterLayout() = default;
  // One entry for each weight; `weights[i].id == i`.
  explicit ParameterLayout(const std::vector<kernels::Weight>& weights,
                           const std::vector<bool>& is_matrix);
  explicit ParameterLayout(const model::Weights& weights);

  int64_t total() const { return total_; }
  const std::vector<Entry>& entries() const { return entries_; }
  const Entry& operator[](int64_t id) const { return entries_[static_cast<size_t>(id)]; }
  // First element of a weight or of a slice of its rows.
  int64_t offset(const kernels::Weight& w) const {
    return (*this)[w.id].offset + w.row_begin * w.cols;
  }

 private:
  std::vector<Entry> entries_;
  int64_t total_ = 0;
};

// Weights without bytes: what the forward pass needs to know about a model whose values live on a
// tape.
model::Weights shapes_only(const model::Config& config);

}  // namespace carat::train
