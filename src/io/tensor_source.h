// What every checkpoint file looks like to the rest of carat: named tensors of known type and
// shape whose bytes were proved to lie inside the file, and nothing about the container.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "tensor/tensor.h"

namespace carat::io {

// One tensor as the container lists it.
struct TensorEntry {
  std::string name;  // as in the file
  DType dtype;
  Shape shape;     // slowest dimension first, whatever the container's order
  int64_t offset;  // of its first byte in its file
  int64_t bytes;   // == byte_count(dtype, shape), checked
  int file = 0;    // index into the shards
};

// A container that is open. Const methods may be called from several threads.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // In the order of the file(s). Names are unique.
  virtual const std::vector<TensorEntry>& entries() const = 0;
  virtual const TensorEntry* find(std::string_view name) const = 0;

  // Path of the file that holds `entry`.
  virtual const std::string& path_of(const TensorEntry& entry) const = 0;

  // Paths of all files that are open, those without tensors included.
  virtual std::vector<std::string> paths() const = 0;

  // The tensor's bytes in a mapping that lives as long as the source.
  virtual TensorView view(const TensorEntry& entry) const = 0;
  // The file's own handle: reading rows with it does not make them resident.
  virtual const RandomAccessFile& file_of(const TensorEntry& entry) const = 0;
  // Gives back the resident pages of a part of the tensor's mapping (byte range within it).
  virtual void release(const TensorEntry& entry, int64_t offset, int64_t length) const = 0;
};

}  // namespace carat::io
