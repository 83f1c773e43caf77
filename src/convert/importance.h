// An importance matrix (io/imatrix_file.h) as conversions use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "convert/transcode.h"
#include "io/imatrix_file.h"
#include "tensor/tensor.h"

namespace carat::convert {

class Importance {
 public:
  // Throws Error.
  explicit Importance(const std::string& path);

  // What each column of a tensor [..., rows, columns] counts, matrix after matrix; null if the file
  // has no entry of this name. Throws Error if the entry's size is another. A single matrix's worth
  // of values serves several matrices alike.
  std::shared_ptr<const ColumnWeights> weights_of(const std::string& name,
                                                  const Shape& shape) const;

 private:
  std::string path_;
  io::Imatrix imatrix_;
};

// What Transcoder does with a piece of a tensor whose columns count differently: `values` are
// elements [begin, begin + n) of it. Blocks of Q4_0 that lie on the lattice stay there; all others,
// and all of other types, are fitted to the weighted error. Counts lattice and errors in
// `findings`, but for `weights`. REQUIRES: tensor.column_weights, whole blocks.
void encode_weighted(const SourceTensor& tensor, int64_t begin, const float* values, int64_t n,
                     DType to, bool judge, std::byte* out, Findings& findings);

}  // namespace carat::convert
