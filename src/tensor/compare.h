// How far one array of floats is from another: what tests and labs report.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace carat {

// Differences of `got` from `want`. Sums are in double. A pair of NaNs, or of equal infinities,
// counts as equal; any other pair with a value that is not finite counts as different and makes
// every figure infinite (cosine 0).
struct Comparison {
  int64_t n = 0;
  int64_t n_different = 0;       // pairs that are not equal as numbers (0 == -0)
  int64_t first_different = -1;  // index of the first, or -1
  double max_abs = 0;            // largest |got - want|
  double max_rel = 0;            // largest |got - want| / |want|; infinite where want is 0
  double nmse = 0;               // sum (got - want)^2 / sum want^2; 0 if both are 0
  double cosine = 1;             // of the two as vectors; 1 if both are 0
};

// REQUIRES: got.size() == want.size().
[[nodiscard]] Comparison compare(std::span<const float> got, std::span<const float> want);

// Index of the first pair whose bits differ, NaN equal to NaN whatever its bits; -1 if none.
// REQUIRES: equal sizes.
[[nodiscard]] int64_t first_bit_difference(std::span<const float> got, std::span<const float> want);

// "17 of 100 differ, first at 3, max abs 1.2e-06, max rel 3e-05, nmse 4e-12, cosine 1".
[[nodiscard]] std::string to_string(const Comparison& c);

}  // namespace carat
