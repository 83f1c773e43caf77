// The scales of one matrix under Adam; its codes, and the scales of sub-blocks, stay.
//
// Trained is a factor for each block's common scale of steps, and one for that of offsets where the
// type has them. Scales are rounded to binary16 at every step (the gradient passes straight
// through), so that what is trained on is what the encoded rows hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/dtype.h"

namespace carat::quantize {

class ScaleDescent {
 public:
  // Rows of `dtype`, one that has a grid (quant/grid.h).
  ScaleDescent(DType dtype, std::vector<std::byte> encoded);

  // Bytes that an object takes for rows of so many bytes, one copy of them included.
  static int64_t bytes(DType dtype, int64_t encoded);

  // What the rows as they are now decode to, and they themselves.
  void decode(std::span<float> values, ThreadPool& pool) const;
  std::vector<std::byte> encode(ThreadPool& pool) const;
  // Step number `step`, from 1. `gradients` of the values; a factor moves by about `rate` at most.
  void step(std::span<const float> gradients, int64_t step, double rate, ThreadPool& pool);

 private:
  // A factor and its moments.
  struct Factor {
    float value = 1, first = 0, second = 0;
    void step(double gradient, int64_t step, double rate);
  };
  struct Factors {
    Factor d, m;
  };

  template <class F>
  void each_block(ThreadPool& pool, F f) const;
  void scaled_block(int64_t i, std::byte* out) const;

  DType dtype_;
  int elements_;   // of a block
  int64_t bytes_;  // of a block
  std::vector<std::byte> start_;
  std::vector<Factors> factors_;  // by block
};

}  // namespace carat::quantize
