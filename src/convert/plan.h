// What a conversion will write: one item per tensor, in the target's order.
#pragma once

#include <string>
#include <vector>

#include "convert/convert.h"
#include "convert/transcode.h"
#include "model/load.h"
#include "model/tensors.h"

namespace carat::convert {

struct Item {
  model::TensorRef ref;
  SourceTensor source;
  std::string name;  // in the target
  Shape shape;       // as the config gives it
  DType to = DType::kF32;
  bool is_matrix = false;  // quantization may touch it
  bool judge = false;      // its blocks' lattice is wanted
  // Written as Q4_0 only while enough of its blocks lie on the lattice.
  bool conditional = false;
  std::string note;

  int64_t target_bytes() const { return row_bytes(to, source.elements); }
};

// Every tensor that the model computes with, in the order of the model's table, with the type that
// the format gives it.
std::vector<Item> make_items(const model::Model& model, model::Naming naming,
                             const ConvertOptions& options);

// The type of a matrix that does not become Q4_0: BF16 for float sources, else the source's.
DType kept_type(DType source);

// Turns a conditional item into one that keeps its weights, with a note that says why.
void keep(Item& item, const LatticeStats& so_far, bool sampled);

// Blocks of the item that may lie off the lattice before it is kept.
int64_t allowed_off_lattice(const Item& item, const ConvertOptions& options);

}  // namespace carat::convert
