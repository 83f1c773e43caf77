#include "convert/q4_0_fit.h"

#include <algorithm>
#include <cmath>

#include "convert/lanes.h"
#include "quant/codes.h"
#include "quant/q4_0.h"

namespace carat::convert {
namespace {

constexpr int kN = quant::kBlock;

// Steps of the extremum that are tried: around code -8, and around code 7 of the other sign, where
// it is clipped a little.
constexpr float kSteps[] = {-9.0f, -8.75f, -8.5f, -8.25f, -8.0f, -7.75f, -7.5f, -7.25f, -7.0f,
                            6.5f,  6.75f,  7.0f,  7.25f,  7.5f,  7.75f,  8.0f,  8.25f};

// The codes (-8..7) of four weights under scale 1 / inverse.
inline Floats round_codes(Floats w, float inverse) noexcept {
  const Floats x = w * all(inverse);
  const Floats low = x > all(-8.0f) ? x : all(-8.0f);
  return round_to_even(low < all(7.0f) ? low : all(7.0f));
}

// How well a scale can do with the codes that it gives: the best d for those is wq / qq, and it
// lowers the squared error by wq^2 / qq.
struct Sums {
  float wq = 0, qq = 0;
  float gain() const { return qq > 0 ? wq * (wq / qq) : 0.0f; }
};

Sums sum_products(const float* w, float inverse) noexcept {
  Floats wq = all(0.0f), qq = all(0.0f);
  for (int j = 0; j < kN; j += kLanes) {
    const Floats x = load<Floats>(w + j);
    const Floats q = round_codes(x, inverse);
    wq += x * q;
    qq += q * q;
  }
  return {(wq[0] + wq[2]) + (wq[1] + wq[3]), (qq[0] + qq[2]) + (qq[1] + qq[3])};
}

// The block with scale d and the nearest codes.
quant::BlockQ4_0 block_with(const float* w, F16 d) noexcept {
  const float scale = to_float(d);
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  uint8_t codes[kN];
  for (int j = 0; j < kN; j += kLanes) {
    const Floats q = round_codes(load<Floats>(w + j), inverse);
    for (int l = 0; l < kLanes; ++l)
      codes[j + l] = static_cast<uint8_t>(static_cast<int>(q[l]) + 8);
  }
  return quant::pack_block_q4_0(d, codes);
}

bool is_finite(F16 d) noexcept { return (d.bits & 0x7c00u) != 0x7c00u; }

}  // namespace

double squared_error(const float* w, const quant::BlockQ4_0& block) noexcept {
  float value[kN];
  quant::decode_block_q4_0(block, value);
  double sum = 0;
  for (int j = 0; j < kN; ++j) {
    const double e = static_cast<double>(w[j]) - static_cast<double>(value[j]);
    sum += e * e;
  }
  return sum;
}

bool q4_0_can_hold(const float* w) noexcept {
  for (int j = 0; j < kN; ++j) {
    if (!std::isfinite(w[j])) return false;
  }
  return is_finite(to_f16(quant::signed_extremum(w, kN) / -8.0f));
}

bool fit_block_q4_0(const float* w, quant::BlockQ4_0* out) noexcept {
  if (!q4_0_can_hold(w)) return false;
  quant::BlockQ4_0 best = quant::encode_block_q4_0(w);
  double best_error = squared_error(w, best);
  *out = best;
  const float extremum = quant::signed_extremum(w, kN);
  if (best_error == 0.0 || !std::isfinite(1.0f / extremum)) return true;

  float best_gain = 0.0f, d = to_float(best.d);
  for (const float steps : kSteps) {
    const Sums s = sum_products(w, steps / extremum);
    if (s.gain() > best_gain) {
      best_gain = s.gain();
      d = s.wq / s.qq;
    }
  }
  const F16 center = to_f16(d);
  if (!is_finite(center) || (center.bits & 0x7fffu) == 0) return true;
  for (const int step : {0, -1, 1}) {
    const F16 neighbour{static_cast<uint16_t>(center.bits + step)};
    if (!is_finite(neighbour)) continue;
    const quant::BlockQ4_0 block = block_with(w, neighbour);
    const double error = squared_error(w, block);
    if (error < best_error) {
      best = block;
      best_error = error;
    }
  }
  *out = best;
  return true;
}

}  // namespace carat::convert
