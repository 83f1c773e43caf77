// The 16 levels that IQ4_NL and IQ4_XS share, and the search for a block's scale.
#pragma once

#include <cstdint>

namespace carat::quant {

// Value of a code before scaling: denser near zero, as normally distributed weights are.
inline constexpr int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

// The code whose level is nearest to v; the lower one of two equally near. NaN gives 0.
[[nodiscard]] int nearest_iq4_code(float v) noexcept;

// The codes nearest to 32 elements / step, packed: element j in the low nibble of byte j, element
// j + 16 in the high one. A step of 0 gives the codes of 0.
void pack_iq4_codes(const float* x, float step, uint8_t* packed) noexcept;

// The step that loses least for 32 elements, each coded as step * level: a search over steps near
// those that give the extremum the outermost level, with a least-squares refit. May be negative.
// Squared errors count `weights[i]` times; null: once.
[[nodiscard]] float best_iq4_step(const float* x, const float* weights) noexcept;

}  // namespace carat::quant
