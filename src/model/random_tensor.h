// Random parameters of a sane model: the residual keeps unit size through all layers, attention
// logits spread by about one and output logits by about one and a half.
//
// With matrices of standard deviation 1/sqrt(columns) every linear layer keeps the size of its
// input; q and k leave their norms with unit elements, so q_norm weights near 1/sqrt(head_dim) give
// q k^T a spread of one. Branches are added with weight 0.3 and the layer scalar brings the
// residual back to unit size. The output norm's weights have random signs: with tied embeddings and
// few layers, weights of one sign would give the token that was just read nearly all probability.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/rng.h"
#include "model/tensors.h"
#include "tensor/dtype.h"

namespace carat::model {

// Mean and standard deviation of a parameter's elements, each of which may change its sign.
struct Spread {
  float mean = 0, deviation = 0;
  bool either_sign = false;
};
Spread random_spread(const Config& config, TensorRef t);
// The seed of a tensor's own stream: its bytes do not depend on its place in the file.
uint64_t random_seed(TensorRef t, uint64_t seed);

// The bytes of one tensor as a stream. They depend on the seed, the tensor's name, the shape and
// the type only.
class RandomTensor {
 public:
  // `dtype` is computable. Block types take random codes and scales directly (random_blocks.h);
  // their elements have zero mean.
  RandomTensor(const Config& config, TensorRef t, DType dtype, uint64_t seed);

  // The next out.size() bytes. REQUIRES: whole blocks.
  void next(std::span<std::byte> out);

 private:
  Spread spread_;
  DType dtype_;
  Rng rng_;
};

}  // namespace carat::model
