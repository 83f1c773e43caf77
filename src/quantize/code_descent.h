// The codes and scales of one matrix under signed gradient descent (as AutoRound does it).
//
// With z the place of a weight among the codes of its block, as it would be with the block's scales
// now, its code is round(z + v) inside the grid. Trained are v, in [-1/2, 1/2] for each weight, and
// a factor for each block's common scales (of steps, and of offsets where the type has them), in
// [1 - range, 1 + range]. The scales of sub-blocks stay as they were encoded. A step moves every v
// and every factor by a fixed amount against the sign of its gradient. The gradient passes straight
// through the rounding, and not where z + v lies outside the grid. Scales are binary16 at every
// step, so that what is trained on is what the encoded rows hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/dtype.h"

namespace carat::quantize {

class CodeDescent {
 public:
  // `weights` [rows, columns] as the source has them; `encoded`, rows of `dtype` (one that has a
  // grid), is where it starts: with no v and no factor these very codes. Where an encoding has
  // another code than the nearest, the weight counts as lying at the edge of that code's cell.
  CodeDescent(DType dtype, int64_t columns, std::vector<float> weights,
              std::vector<std::byte> encoded, float range);

  // Bytes that an object takes for each weight, beside those of the type.
  static constexpr int64_t kBytesPerWeight = 8;

  // What the encoding as it is now decodes to, [rows, columns].
  void decode(std::span<float> values, ThreadPool& pool) const;
  // The rows as they are now.
  std::vector<std::byte> encode(ThreadPool& pool) const;
  // `gradients` of the values. Moves every v by `rate` and every factor by `scale_rate`.
  void step(std::span<const float> gradients, float rate, float scale_rate, ThreadPool& pool);

 private:
  struct Block;
  int64_t blocks() const { return static_cast<int64_t>(d_factor_.size()); }
  template <class F>
  void each_block(ThreadPool& pool, F f) const;

  DType dtype_;
  int elements_;   // of a block
  int64_t bytes_;  // of a block
  bool has_offsets_;
  float range_;
  std::vector<float> weights_, v_;
  std::vector<std::byte> start_;
  std::vector<float> d_factor_, m_factor_;  // by block
};

}  // namespace carat::quantize
