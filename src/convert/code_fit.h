// Codes and scales of weights: found again where the weights lie on a lattice, else fitted.
#pragma once

#include <cstdint>

#include "convert/lattice.h"
#include "quant/blocks.h"
#include "tensor/dtype.h"

namespace carat::convert {

// What became of a group of weights that share a scale.
enum class Fit : uint8_t {
  kExact,         // every weight is the rounded product of its code and the scale
  kRoundedScale,  // the codes are those of the lattice, the scale is the nearest of its type
  kFitted,        // the weights were rounded
};

// A type of scales that holds `scale` gives this.
[[nodiscard]] float round_scale(float scale, DType type) noexcept;

// 32 weights as 4-bit codes -8..7 with a BF16 scale. `block` is the Q4_0 block that recovery found,
// or that was fitted. A scale is negative only where a code of -8 asks for it: 8 steps up are -8
// times a negative scale, and every reader of the format multiplies by the scale's sign.
[[nodiscard]] Fit fit_group_of_32(const float* w, Grid grid, const quant::BlockQ4_0& block,
                                  int8_t* codes, float* scale) noexcept;

// n weights as codes of 2, 4 or 8 bits with one positive scale of `type`: the least squared error
// found in a search over scales, each refitted by least squares. Deterministic. False if a weight
// is not finite.
[[nodiscard]] bool fit_group(const float* w, int64_t n, DType codes_type, DType scale_type,
                             int8_t* codes, float* scale);

}  // namespace carat::convert
