// How much of a test text was in the text that something was calibrated or trained on.
//
// Windows of kOverlapTokens tokens are compared by a 64-bit hash. Natural language repeats itself
// at that length only in quotations, boilerplate and copies.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace carat::audit {

inline constexpr int64_t kOverlapTokens = 13;

struct Overlap {
  int64_t windows = 0;  // of the test text
  int64_t shared = 0;   // of those, in the other text too
  double share() const {
    return windows > 0 ? static_cast<double>(shared) / static_cast<double>(windows) : 0;
  }
};

// Documents of tokens; a window lies inside one document.
[[nodiscard]] Overlap find_overlap(std::span<const std::vector<int32_t>> test,
                                   std::span<const std::vector<int32_t>> other);

}  // namespace carat::audit
