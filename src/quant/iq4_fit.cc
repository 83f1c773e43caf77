#include "quant/iq4_fit.h"

#include "quant/blocks.h"
#include "quant/codes.h"
#include "quant/lanes.h"
#include "quant/weighing.h"

namespace carat::quant {
namespace {

// Twice the points halfway between levels, sorted.
constexpr int kMiddles[15] = {-231, -187, -148, -114, -84, -57, -32, -9,
                              14,   38,   63,   91,   122, 158, 202};

constexpr bool middles_fit() {
  for (int i = 0; i < 15; ++i) {
    if (kMiddles[i] != kIq4Levels[i] + kIq4Levels[i + 1]) return false;
  }
  return true;
}
static_assert(middles_fit());

constexpr float level(int code) noexcept { return static_cast<float>(kIq4Levels[code]); }

float inverse_of(float step) noexcept { return step != 0.0f ? 1.0f / step : 0.0f; }

// The levels of nearest_iq4_code. Adds up what lies between levels, from the lowest on; integers
// below 2^24, so that any order gives the same.
Lanes nearest_levels(Lanes v) noexcept {
  const Lanes twice = v + v, none = {};
  Lanes sums[3] = {all(level(0)), none, none};
  for (int i = 0; i < 15; ++i) {
    const Lanes up = all(level(i + 1) - level(i));
    sums[i % 3] += twice > all(static_cast<float>(kMiddles[i])) ? up : none;
  }
  return sums[0] + sums[1] + sums[2];
}

struct Sums {
  float xq, qq;
};
template <class Weights>
Sums sums_with(const float* x, Weights w, float inverse) noexcept {
  Lanes xq = {}, qq = {};
  for (int i = 0; i < kBlock; i += kLanes) {
    const Lanes v = load(x + i);
    const Lanes q = nearest_levels(v * inverse);
    const Lanes wq = w.at(i) * q;
    xq += v * wq;
    qq += q * wq;
  }
  return {sum_of(xq), sum_of(qq)};
}

template <class Weights>
float best_step(const float* x, Weights w) noexcept {
  const float extremum = signed_extremum(x, kBlock);
  if (extremum == 0.0f) return 0.0f;
  float best = 0.0f;
  float best_gain = -1.0f;
  for (const float outermost : {level(0), level(15)}) {
    // Where the extremum may count little, much of it may be cut off; the levels being uneven, much
    // of their range may also be left out.
    constexpr int kReach = Weights::kEven ? 7 : 20;
    constexpr float kUnit = Weights::kEven ? 1.0f : 2.0f;
    for (int k = -kReach; k <= kReach; ++k) {
      const Sums s = sums_with(x, w, (outermost + kUnit * static_cast<float>(k)) / extremum);
      // With the least-squares step xq / qq the error is sum x^2 - xq^2 / qq; qq > 0.
      if (s.xq * s.xq > best_gain * s.qq) {
        best_gain = s.xq * s.xq / s.qq;
        best = s.xq / s.qq;
      }
    }
  }
  return best;
}

template <class Weights>
float error_with(const float* x, Weights w, float step) noexcept {
  const float inverse = inverse_of(step);
  Lanes error = {};
  for (int i = 0; i < kBlock; i += kLanes) {
    const Lanes v = load(x + i);
    const Lanes e = v - step * nearest_levels(v * inverse);
    error += w.at(i) * e * e;
  }
  return sum_of(error);
}

}  // namespace

int nearest_iq4_code(float v) noexcept {
  const float twice = 2.0f * v;
  int code = 0;
  for (const int middle : kMiddles) code += twice > static_cast<float>(middle) ? 1 : 0;
  return code;
}

float best_iq4_step(const float* x, const float* weights) noexcept {
  return weights == nullptr ? best_step(x, EvenWeights{}) : best_step(x, ElementWeights{weights});
}

float iq4_error(const float* x, const float* weights, float step) noexcept {
  return weights == nullptr ? error_with(x, EvenWeights{}, step)
                            : error_with(x, ElementWeights{weights}, step);
}

}  // namespace carat::quant
