#include "quant/iq4_fit.h"

#include "quant/blocks.h"
#include "quant/lanes.h"
#include "quant/search/table.h"

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

}  // namespace

int nearest_iq4_code(float v) noexcept {
  const float twice = 2.0f * v;
  int code = 0;
  for (const int middle : kMiddles) code += twice > static_cast<float>(middle) ? 1 : 0;
  return code;
}

void pack_iq4_codes(const float* x, float step, uint8_t* packed) noexcept {
  uint8_t codes[kBlock];
  search::searches().iq4_codes(x, step != 0.0f ? 1.0f / step : 0.0f, codes);
  for (int j = 0; j < kBlock / 2; ++j) {
    packed[j] = static_cast<uint8_t>(codes[j] | codes[j + kBlock / 2] << 4);
  }
}

float best_iq4_step(const float* x, const float* weights) noexcept {
  const float extremum = extremum_of_block(x);
  return extremum == 0.0f ? 0.0f : search::searches().iq4_step(x, weights, extremum);
}

}  // namespace carat::quant
