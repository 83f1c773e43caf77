// Random rows of codes and their scales (quant/coded_rows.h), drawn as such: a model of true shape
// takes seconds that encoding random floats would not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/rng.h"
#include "model/config.h"
#include "model/tensors.h"
#include "tensor/dtype.h"

namespace carat::model {

// A parameter of codes as a stream of packed codes, and another one of scales. Values have about
// zero mean and the deviation of random_spread(); 4- and 8-bit codes are nearly normal, and of
// 4-bit ones every value occurs. Bytes depend on the seed, the tensor's name and the type only.
class RandomCodes {
 public:
  RandomCodes(const Config& config, TensorRef t, DType codes, uint64_t seed);

  // The next out.size() bytes of packed codes.
  void next(std::span<std::byte> out);
  // The next scale, within 20 % of what the deviation asks for; positive, or of either sign.
  float next_scale(bool either_sign = false);

 private:
  DType dtype_;
  float size_;  // of a scale
  Rng codes_, scales_;
};

}  // namespace carat::model
