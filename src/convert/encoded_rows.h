// Tensors of a GGUF file that somebody else has encoded: convert writes them as they are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/file.h"
#include "tensor/dtype.h"

namespace carat::convert {

// The rows of one tensor in the order of its file, all blocks of it.
struct EncodedTensor {
  DType dtype = DType::kF32;
  const RandomAccessFile* file = nullptr;
  int64_t offset = 0;
};

class EncodedRows {
 public:
  virtual ~EncodedRows() = default;
  // By the tensor's name in GGUF files; nothing if convert shall encode it by itself. The answer
  // is the same during one conversion.
  virtual std::optional<EncodedTensor> find(const std::string& name) const = 0;
};

}  // namespace carat::convert
