// Random blocks of the quantized types, drawn as codes and scales: a model of true shape takes
// seconds that encoding random floats would not.
#pragma once

#include <cstddef>

#include "base/rng.h"
#include "tensor/dtype.h"

namespace carat::model {

// Writes one block whose elements have zero mean and standard deviation `deviation`; scales differ
// by sub-block, and by sign where the type has signed ones. REQUIRES: a computable type
// with blocks.
void random_block(DType dtype, Rng& rng, float deviation, std::byte* out);

}  // namespace carat::model
