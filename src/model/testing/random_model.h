// A random model in memory, for tests.
#pragma once

#include <memory>

#include "model/random_tensor.h"
#include "model/testing/bind_source.h"

namespace carat::model::testing {

// Matrices of type `matrix`, the per-layer table and the token embedding of type `table`, norms and
// the router F32.
inline Weights random_weights(const Config& config, DType matrix, DType table, uint64_t seed = 1) {
  auto source = std::make_unique<MemorySource>();
  for (const TensorRef t : required_tensors(config)) {
    const TensorClass cls = row_of(t.kind).cls;
    DType dtype = matrix;
    if (cls == TensorClass::kKeep) dtype = DType::kF32;
    if (cls == TensorClass::kEmbedding || cls == TensorClass::kPleTable) dtype = table;
    const Shape shape = shape_of(config, t);
    std::vector<std::byte> bytes(static_cast<size_t>(*byte_count(dtype, shape)));
    RandomTensor(config, t, dtype, seed).next(bytes);
    source->add(gguf_name(t), dtype, shape, std::move(bytes));
  }
  return bind_source(config, std::move(source));
}

}  // namespace carat::model::testing
