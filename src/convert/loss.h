// What a conversion may lose, by the names that a person accepts it under, and how much it is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace carat::convert {

enum class Loss : uint8_t {
  kRoundedWeights = 1,           // weights take other values
  kRoundedScales = 2,            // codes stay; scales are rounded to a narrower type
  kDroppedActivationScales = 4,  // static rounding of what layers read and give (and of the cache)
  kDroppedCacheScales = 8,       // static rounding of cached keys and values
};
const char* name_of(Loss loss);  // "rounded-weights"
std::vector<std::string> loss_names();

// A set of them.
class Losses {
 public:
  Losses() = default;
  // From "rounded-weights,rounded-scales". Throws Error listing the names.
  static Losses from_text(std::string_view text);

  void add(Loss loss) { bits_ |= static_cast<uint8_t>(loss); }
  // Who accepts other activations accepts another cache.
  bool accepts(Loss loss) const;
  bool empty() const { return bits_ == 0; }
  std::string text() const;  // the names, joined by commas

  bool operator==(const Losses&) const = default;

 private:
  uint8_t bits_ = 0;
};

// Differences between weights and what was written for them.
struct ErrorSums {
  double squared_error = 0, squared_weights = 0;
  // Largest |written - weight| over the largest |weight| among 32 neighbours (or, where they share
  // one, in their group of a scale).
  double worst_relative = 0;

  void add(const ErrorSums& other);
  double relative_rms() const;
};
// REQUIRES: finite weights, or the sums are not either.
ErrorSums measure_error(const float* weights, const float* written, int64_t n, int64_t group = 32);

}  // namespace carat::convert
