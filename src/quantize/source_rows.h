// The source's weights as floats, read from its file row by row: nothing becomes resident.
#pragma once

#include <cstdint>

#include "io/checkpoint.h"
#include "model/config.h"
#include "model/stored.h"
#include "model/tensors.h"
#include "tensor/dtype.h"

namespace carat::quantize {

// Const after construction; may be shared between threads.
class SourceRows {
 public:
  // `checkpoint`'s tensors outlive it.
  SourceRows(const io::Checkpoint& checkpoint, const model::Config& config);

  // Rows [begin, begin + n) of a parameter, its last dimension each; experts lie one behind the
  // other. Throws Error if they cannot be read or decoded.
  void read(model::TensorRef ref, int64_t begin, int64_t n, float* out) const;

  // The type that a parameter has in the file; C2, C4 or C8 for codes.
  DType dtype(model::TensorRef ref) const;

 private:
  const io::TensorSource& source_;
  model::Config config_;
  model::StoredTensors stored_;
};

}  // namespace carat::quantize
