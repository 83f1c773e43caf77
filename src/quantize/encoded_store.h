// Tensors that a method has encoded, until the file that they are for is written: they lie in a
// file beside it that has no name, so that memory holds the ones at work only and nothing is left
// however the process ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "convert/encoded_rows.h"
#include "tensor/tensor.h"

namespace carat::quantize {

// Used by one thread at a time. Errors are Error with the target's path.
class EncodedStore final : public convert::EncodedRows {
 public:
  // Lies in the folder of `target`.
  explicit EncodedStore(const std::string& target);
  ~EncodedStore() override;
  EncodedStore(const EncodedStore&) = delete;
  EncodedStore& operator=(const EncodedStore&) = delete;

  // Sets rows from row_begin on of a tensor, by its name in GGUF files. `shape` is the parameter's
  // (slowest dimension first), a row its last dimension; experts lie one behind the other. A tensor
  // that comes with another type than before begins anew.
  // REQUIRES: whole rows inside the shape; the last dimension is whole blocks of the type.
  void put(const std::string& name, DType dtype, const Shape& shape, int64_t row_begin,
           std::span<const std::byte> rows);
  // Reads rows that were put there.
  void read(const std::string& name, int64_t row_begin, std::span<std::byte> rows) const;
  // As if it had never been put.
  void erase(const std::string& name) { entries_.erase(name); }

  // Of a tensor all of whose rows were set.
  std::optional<convert::EncodedTensor> find(const std::string& name) const override;

 private:
  class File;
  struct Entry {
    DType dtype = DType::kF32;
    int64_t row_size = 0, offset = 0;
    std::vector<bool> set;  // [rows]
    int64_t n_set = 0;
  };

  std::unique_ptr<File> file_;
  int64_t end_ = 0;
  std::unordered_map<std::string, Entry> entries_;
};

}  // namespace carat::quantize
