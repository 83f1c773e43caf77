// The best Q4_0 block for weights that lie on no lattice.
#pragma once

#include "quant/blocks.h"

namespace carat::convert {

// Minimises the squared error over a search of signed scales (7 to 9 steps to the extremum) with a
// least-squares refit and the binary16 neighbours of the result. Never worse in squared error than
// the reference rule, signed extremum / -8 (quant/q4_0.h). Deterministic.
//
// False if a weight is not finite or too large for any binary16 scale.
[[nodiscard]] bool fit_block_q4_0(const float* w, quant::BlockQ4_0* out) noexcept;

// Whether fit_block_q4_0 would succeed.
[[nodiscard]] bool q4_0_can_hold(const float* w) noexcept;

// Sum of squared differences between w[32] and the block's values, in double, in order.
[[nodiscard]] double squared_error(const float* w, const quant::BlockQ4_0& block) noexcept;

}  // namespace carat::convert
