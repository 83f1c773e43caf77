#include "quant/iq4_fit.h"

#include <cmath>

#include "quant/blocks.h"
#include "quant/codes.h"

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

float level(int code) noexcept { return static_cast<float>(kIq4Levels[code]); }

float weight(const float* weights, int i) noexcept {
  return weights != nullptr ? weights[i] : 1.0f;
}

float inverse_of(float step) noexcept { return step != 0.0f ? 1.0f / step : 0.0f; }

}  // namespace

int nearest_iq4_code(float v) noexcept {
  const float twice = 2.0f * v;
  int code = 0;
  for (const int middle : kMiddles) code += twice > static_cast<float>(middle) ? 1 : 0;
  return code;
}

float best_iq4_step(const float* x, const float* weights) noexcept {
  const float extremum = signed_extremum(x, kBlock);
  if (extremum == 0.0f) return 0.0f;
  float best = 0.0f;
  float best_gain = -1.0f;
  for (const float outermost : {level(0), level(15)}) {
    // Where the extremum may count little, much of it may be cut off.
    for (int k = -7; k <= (weights == nullptr ? 7 : 40); ++k) {
      const float inverse = (outermost + static_cast<float>(k)) / extremum;
      float xq = 0.0f;
      float qq = 0.0f;
      for (int i = 0; i < kBlock; ++i) {
        const float q = level(nearest_iq4_code(x[i] * inverse));
        const float w = weight(weights, i);
        xq += w * x[i] * q;
        qq += w * q * q;
      }
      // With the least-squares step xq / qq the error is sum x^2 - xq^2 / qq; qq > 0.
      if (xq * xq > best_gain * qq) {
        best_gain = xq * xq / qq;
        best = xq / qq;
      }
    }
  }
  return best;
}

float iq4_error(const float* x, const float* weights, float step) noexcept {
  const float inverse = inverse_of(step);
  float error = 0.0f;
  for (int i = 0; i < kBlock; ++i) {
    const float e = x[i] - step * level(nearest_iq4_code(x[i] * inverse));
    error += weight(weights, i) * e * e;
  }
  return error;
}

}  // namespace carat::quant
