// The 16 levels that IQ4_NL and IQ4_XS share, and the search for a block's scale.
#pragma once

#include <cstdint>

namespace carat::quant {

// Value of a code before scaling: denser near zero, as normally distributed weights are.
inline constexpr int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

// The code whose level is nearest to v; the lower one of two equally near. NaN gives 0.
[[nodiscard]] int nearest_iq4_code(float v) noexcept;

// The step that loses least for 32 elements, each coded as step * level: a search over steps near
// those that give the extremum the outermost level, with a least-squares refit. May be negative.
// Squared errors count `weights[i]` times; null: once.
[[nodiscard]] float best_iq4_step(const float* x, const float* weights) noexcept;

// Sum of squared differences of 32 elements coded with `step`, weighted the same way.
[[nodiscard]] float iq4_error(const float* x, const float* weights, float step) noexcept;

}  // namespace carat::quant
