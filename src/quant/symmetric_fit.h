// Codes for K blocks without minimums (Q6_K, Q3_K): 256 elements, value = d * scale * code with a
// signed scale per 16 elements and a signed code.
#pragma once

#include <cstdint>

#include "base/half.h"

namespace carat::quant {

// Ranges [-code_levels, code_levels - 1] and [-scale_levels, scale_levels - 1].
struct SymmetricGrid {
  int code_levels;
  int scale_levels;
};

struct SymmetricCodes {
  F16 d = {};
  int scale[16] = {};
  int8_t code[256] = {};
};

// Minimises the squared error: per sub-block a search over steps near extremum / -code_levels with
// a least-squares refit, then scales rounded to multiples of d, each tried one step up and down,
// and d refitted. Never worse than the plain rule (extremum / -code_levels per sub-block).
// Each element's squared error counts `weights[i]` times; null: once.
[[nodiscard]] SymmetricCodes fit_symmetric(const float* x, const float* weights,
                                           SymmetricGrid grid) noexcept;

}  // namespace carat::quant
