// How much each element's squared error counts in an encoder's search: all alike, or by weights.
#pragma once

#include <cstdint>

#include "quant/lanes.h"

namespace carat::quant {

// Factors of 1 vanish in the compiled code, and the results are those of plain sums.
struct EvenWeights {
  static constexpr bool kEven = true;
  Lanes at(int) const noexcept { return all(1.0f); }
  float operator[](int) const noexcept { return 1.0f; }
  EvenWeights operator+(int) const noexcept { return {}; }
};

struct ElementWeights {
  static constexpr bool kEven = false;
  const float* w;
  Lanes at(int i) const noexcept { return load(w + i); }
  float operator[](int i) const noexcept { return w[i]; }
  ElementWeights operator+(int i) const noexcept { return {w + i}; }
};

}  // namespace carat::quant
