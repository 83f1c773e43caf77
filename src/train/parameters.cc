#include "train/parameters.h"

#include "base/checked.h"
#include "base/error.h"

namespace carat::train {
namespace {

std::vector<bool> matrices_of(const model::Weights& weights) {
  std::vector<bool> is_matrix;
  for (const model::TensorRef& ref : weights.refs) {
    is_matrix.push_back(model::row_of(ref.kind).cls != model::TensorClass::kKeep);
  }
  return is_matrix;
}

}  // namespace

ParameterLayout::ParameterLayout(const std::vector<kernels::Weight>& weights,
                                 const std::vector<bool>& is_matrix) {
  CHECK(weights.size() == is_matrix.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const kernels::Weight& w = weights[i];
    CHECK(w.id == static_cast<int32_t>(i));
    const auto size = checked_product({w.count, w.rows, w.cols});
    if (!size) throw Error("the model is too large to train");
    entries_.push_back({total_, *size, w.cols, is_matrix[i]});
    total_ = add_or_throw(total_, round_up(*size, 16), "the number of parameters");
  }
}

ParameterLayout::ParameterLayout(const model::Weights& weights)
    : ParameterLayout(weights.all, matrices_of(weights)) {}

model::Weights shapes_only(const model::Config& config) {
  model::Weights w;
  w.config = config;
  w.refs = model::required_tensors(config);
  for (size_t i = 0; i < w.refs.size(); ++i) {
    const Shape shape = model::shape_of(config, w.refs[i]);
    kernels::Weight x;
    x.id = static_cast<int32_t>(i);
    x.cols = shape.back();
    x.rows = shape.size() >= 2 ? shape[shape.size() - 2] : 1;
    x.count = shape.size() >= 3 ? shape[shape.size() - 3] : 1;
    w.all.push_back(x);
  }
  w.index();
  return w;
}

}  // namespace carat::train
