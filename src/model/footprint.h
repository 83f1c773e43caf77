// How much memory a model takes while it runs, from shapes and types alone: no weight is read. It
// follows what pack.h, kv_cache.h and kernels/cpu do; `carat fit` tells it, and bench/fit_check
// holds it against measured maximum resident sets.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/kv_pages.h"
#include "model/weights.h"
#include "text/vocab.h"

namespace carat::model {

// How a parameter is stored, as far as sizes go.
struct StoredType {
  DType dtype = DType::kF32;  // C2, C4, C8: codes
  // Of codes: columns that share a scale, and the type of the scales.
  int64_t scale_columns = 0;
  DType scales = DType::kF32;
  bool static_input = false;  // what it is multiplied with is rounded by a stored scale
};

// Weights that have shapes and types and no bytes: what the functions below, and whoever counts the
// traffic of a step, need of a model. Not to compute with.
Weights weights_of_shape(const Config& config, const std::function<StoredType(TensorRef)>& type_of);

struct WeightMemory {
  int64_t packed = 0;   // tiles, in whole pages of large memory
  int64_t mapped = 0;   // matrices of floats, which are read where the file has them
  int64_t vectors = 0;  // norms and scalars as floats
  int64_t in_file = 0;  // tables that are only looked up: they stay on the disk

  int64_t resident() const { return packed + mapped + vectors; }
};
WeightMemory weight_memory(const Weights& weights);

// Bytes of keys and values by kind of layer; layers that share those of another add nothing.
struct KvMemory {
  int64_t local = 0, global = 0;
  int64_t total() const { return local + global; }
};
// The most that a sequence of `n_tokens` needs at any time, read in steps of `chunk` tokens:
// kv_bytes, parted.
KvMemory kv_memory(const Config& config, kernels::KvType type, int64_t n_tokens, int64_t chunk);

// Most bytes of activations, and of what threads work in, of a step over `rows` tokens of which the
// last asks for its logits, the copy of the logits that a session keeps included.
int64_t activation_bytes(const Weights& weights, kernels::KvType kv, int64_t rows, int threads);

// Of a text::Tokenizer with this vocabulary.
int64_t tokenizer_bytes(const text::Vocab& vocab);

}  // namespace carat::model
