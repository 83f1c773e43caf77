// What a step must read and multiply: what its speed is compared with.
#pragma once

#include <cstdint>

#include "kernels/kv_pages.h"
#include "model/load.h"

namespace carat::app {

// Bytes that a decode step must read.
struct StepBytes {
  // Every matrix once (the token embedding where it is the output matrix), one row of tables that
  // are looked up, of experts the share that one token uses. In the form of the file, scales of
  // codes included: what packing adds is not counted.
  int64_t weights = 0;
  // Keys and values of all sequences, by kind of layer, each layer's own window only.
  int64_t kv_local = 0;
  int64_t kv_global = 0;
  int64_t total() const { return weights + kv_local + kv_global; }
};

// For `sequences` tokens, one of each sequence, all at position `position`. With experts and more
// than one sequence it is a lower bound: how many of the experts the others add is not known.
[[nodiscard]] StepBytes decode_step_bytes(const model::Model& model, kernels::KvType kv,
                                          int64_t position, int64_t sequences = 1);

// The total for one sequence.
[[nodiscard]] int64_t decode_bytes(const model::Model& model, kernels::KvType kv, int64_t position);

// Multiply-adds of reading tokens.
struct StepMultiplyAdds {
  int64_t matrices = 0;   // weights times activations, the router's included
  int64_t attention = 0;  // scores and weighted sums over the keys in each layer's window
  int64_t total() const { return matrices + attention; }
};

// For positions [first, first + n) of one sequence, of which the last `wanted` ask for logits:
// exactly what model/forward.h runs, however the tokens are cut into steps. Rows whose logits
// nobody asks for stop at the keys and values of the last layer that owns some.
// REQUIRES: n >= 1, 1 <= wanted <= n.
[[nodiscard]] StepMultiplyAdds prefill_multiply_adds(const model::Model& model, int64_t first,
                                                     int64_t n, int64_t wanted);

}  // namespace carat::app
