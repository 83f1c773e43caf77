// First values of a fresh model.
#pragma once

#include "train/parameters.h"

namespace carat::train {

// Matrices are normal with deviation 1 / sqrt(columns), embeddings with 1 / sqrt(their width), so
// that every projection and the embedded token have about unit size. Norm weights are 1, except:
// norms that end a branch, 1 / sqrt(layers), so that the residual stays of unit order; and q_norm,
// 1 / sqrt(head_dim), because attention does not scale its logits. Scalars and expert scales are 1.
void initialise(const model::Weights& shapes, const ParameterLayout& layout, uint64_t seed,
                float* values);

}  // namespace carat::train
