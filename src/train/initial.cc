#include "train/initial.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace carat::train {

void initialise(const model::Weights& shapes, const ParameterLayout& layout, uint64_t seed,
                float* values) {
  using Kind = model::TensorKind;
  Rng rng(seed);
  std::fill(values, values + layout.total(), 0.0f);
  const auto n_layers = static_cast<double>(shapes.config.n_layers);
  for (size_t id = 0; id < shapes.all.size(); ++id) {
    const auto& e = layout[static_cast<int64_t>(id)];
    const model::TensorRef ref = shapes.refs[id];
    float* w = values + e.offset;
    double constant = 1;
    double deviation = 0;
    switch (ref.kind) {
      case Kind::kPostAttnNorm:
      case Kind::kPostFfnNorm:
      case Kind::kPlePostNorm:
        constant = 1 / std::sqrt(n_layers);
        break;
      case Kind::kQNorm:
        constant = 1 / std::sqrt(static_cast<double>(shapes.config.layer(ref.layer).head_dim));
        break;
      case Kind::kPleTable:
        deviation = 1 / std::sqrt(static_cast<double>(shapes.config.ple_dim));
        break;
      default:
        if (e.matrix || ref.kind == Kind::kRouter) {
          deviation = 1 / std::sqrt(static_cast<double>(e.cols));
        }
    }
    for (int64_t i = 0; i < e.size; ++i) {
      w[i] = static_cast<float>(deviation > 0 ? deviation * rng.normal() : constant);
    }
  }
}

}  // namespace carat::train
