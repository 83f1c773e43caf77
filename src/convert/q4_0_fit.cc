#include "convert/q4_0_fit.h"

#include <algorithm>
#include <cmath>

#include "quant/codes.h"
#include "quant/q4_0.h"

namespace carat::convert {
namespace {

constexpr int kN = quant::kBlock;

// The code of every weight, -8..7, under scale 1 / inverse.
void round_codes(const float* w, float inverse, float* q) noexcept {
  constexpr float kBias = 12582912.0f;  // 1.5 * 2^23: adding it rounds to nearest even
  for (int j = 0; j < kN; ++j) {
    const float x = w[j] * inverse;
    const float low = x > -8.0f ? x : -8.0f;
    const float clamped = low < 7.0f ? low : 7.0f;
    q[j] = (clamped + kBias) - kBias;
  }
}

// Sums that decide how well a scale can do with given codes: the best d is wq / qq, and it lowers
// the squared error by wq^2 / qq.
struct Sums {
  float wq = 0, qq = 0;
  float gain() const { return qq > 0 ? wq * (wq / qq) : 0.0f; }
};

Sums sum_products(const float* w, const float* q) noexcept {
  float wq[8] = {}, qq[8] = {};
  for (int j = 0; j < kN; j += 8) {
    for (int l = 0; l < 8; ++l) {
      wq[l] += w[j + l] * q[j + l];
      qq[l] += q[j + l] * q[j + l];
    }
  }
  Sums s;
  for (int l = 0; l < 8; ++l) s.wq += wq[l], s.qq += qq[l];
  return s;
}

// The block with scale d and the nearest codes.
quant::BlockQ4_0 block_with(const float* w, F16 d) noexcept {
  float q[kN];
  const float scale = to_float(d);
  round_codes(w, scale != 0.0f ? 1.0f / scale : 0.0f, q);
  uint8_t codes[kN];
  for (int j = 0; j < kN; ++j) codes[j] = static_cast<uint8_t>(static_cast<int>(q[j]) + 8);
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

  float q[kN];
  float best_gain = 0.0f, d = to_float(best.d);
  for (int i = -8; i <= 8; ++i) {
    for (const float sign : {-1.0f, 1.0f}) {
      round_codes(w, sign * (8.0f + 0.125f * static_cast<float>(i)) / extremum, q);
      const Sums s = sum_products(w, q);
      if (s.gain() > best_gain) {
        best_gain = s.gain();
        d = s.wq / s.qq;
      }
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
