// Experts whose gate and up matrices lie in two tensors, as some converters write them, seen as the
// one tensor that others write.
#pragma once

#include <memory>

#include "io/tensor_source.h"

namespace carat::io {

// Puts blk.N.ffn_gate_up_exps.weight [n, 2 rows, columns] in place of every pair of
// blk.N.ffn_gate_exps.weight and blk.N.ffn_up_exps.weight [n, rows, columns] of one type: of each
// expert the rows of its gate, then those of its up matrix. Pairs that do not match stay as they
// are. Gives back `source` itself if it has no such pair.
//
// Reading the joined tensor's file reads both. It is not mapped: view() copies all of it once into
// memory that lives as long as the source, so prefer reading.
std::unique_ptr<TensorSource> join_gate_up_experts(std::unique_ptr<TensorSource> source);

// Whether a file is that of a joined tensor, which has no mapping.
[[nodiscard]] bool is_joined(const RandomAccessFile& file);

}  // namespace carat::io
