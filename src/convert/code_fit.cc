#include "convert/code_fit.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/half.h"
#include "convert/lanes.h"
#include "quant/coded_rows.h"
#include "quant/q4_0.h"

namespace carat::convert {
namespace {

constexpr int kN = quant::kBlock;

// Whether scale * codes are the weights on their grid; finds the codes.
bool reproduces(const float* w, Grid grid, float scale, int8_t* codes) noexcept {
  if (scale == 0 || !std::isfinite(scale)) return false;
  const float inverse = 1.0f / scale;
  for (int j = 0; j < kN; ++j) {
    const float steps = std::nearbyint(w[j] * inverse);
    if (!(steps >= -8.0f && steps <= 7.0f)) return false;
    if (round_to_grid(scale * steps, grid) != w[j]) return false;
    codes[j] = static_cast<int8_t>(steps);
  }
  return true;
}

float next_bf16(float x, int steps) noexcept {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(x) + (static_cast<uint32_t>(steps) << 16));
}

// A BF16 scale at or beside `center` that reproduces the weights.
bool find_bf16_scale(const float* w, Grid grid, float center, int8_t* codes,
                     float* scale) noexcept {
  const float start = to_float(to_bf16(center));
  for (const int step : {0, 1, -1}) {
    const float s = next_bf16(start, step);
    if (!reproduces(w, grid, s, codes)) continue;
    *scale = s;
    return true;
  }
  return false;
}

// Scales too small for Q4_0's binary16: the steps of the extremum are tried in turn.
bool find_small_bf16_scale(const float* w, Grid grid, int8_t* codes, float* scale) noexcept {
  float extremum = 0;
  for (int j = 0; j < kN; ++j) {
    if (!std::isfinite(w[j])) return false;
    if (std::fabs(w[j]) > std::fabs(extremum)) extremum = w[j];
  }
  if (extremum == 0) return false;
  for (int k = 8; k >= 1; --k) {
    const float d = (k == 8 ? -extremum : std::fabs(extremum)) / static_cast<float>(k);
    if (find_bf16_scale(w, grid, d, codes, scale)) return true;
  }
  return false;
}

void nearest_codes(const float* w, float scale, int8_t* codes) noexcept {
  const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
  for (int j = 0; j < kN; ++j) {
    codes[j] = static_cast<int8_t>(std::clamp(std::nearbyint(w[j] * inverse), -8.0f, 7.0f));
  }
}

double squared_error(const float* w, float scale, const int8_t* codes) noexcept {
  double sum = 0;
  for (int j = 0; j < kN; ++j) {
    const double e = static_cast<double>(w[j]) - static_cast<double>(scale) * codes[j];
    sum += e * e;
  }
  return sum;
}

// Both signs hold the codes where none is -8: the positive one is taken.
void prefer_positive(int8_t* codes, float* scale) noexcept {
  if (*scale >= 0 && !std::signbit(*scale)) return;
  if (std::find(codes, codes + kN, -8) != codes + kN) return;
  for (int j = 0; j < kN; ++j) codes[j] = static_cast<int8_t>(-codes[j]);
  *scale = -*scale;
}

// -- many weights with one scale ----------------------------------------------------------------

struct Sums {
  double wq = 0, qq = 0;
};

// sum of w * q and q * q for the codes that 1 / inverse gives, in lanes over pieces.
Sums sum_products(const float* w, int64_t n, float inverse, float lo, float hi) noexcept {
  Sums sums;
  constexpr int64_t kPiece = 1024;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t end = std::min(n, begin + kPiece);
    Floats wq = all(0.0f), qq = all(0.0f);
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      const Floats x = load<Floats>(w + i);
      Floats q = x * all(inverse);
      q = q > all(lo) ? q : all(lo);
      q = round_to_even(q < all(hi) ? q : all(hi));
      wq += x * q;
      qq += q * q;
    }
    for (int l = 0; l < kLanes; ++l) sums.wq += wq[l], sums.qq += qq[l];
    for (; i < end; ++i) {
      const float q = std::nearbyint(std::clamp(w[i] * inverse, lo, hi));
      sums.wq += static_cast<double>(w[i]) * q;
      sums.qq += static_cast<double>(q) * q;
    }
  }
  return sums;
}

}  // namespace

float round_scale(float scale, DType type) noexcept {
  return type == DType::kBF16  ? to_float(to_bf16(scale))
         : type == DType::kF16 ? to_float(to_f16(scale))
                               : scale;
}

Fit fit_group_of_32(const float* w, Grid grid, const quant::BlockQ4_0& block, int8_t* codes,
                    float* scale) noexcept {
  const float d = to_float(block.d);
  bool on_lattice = true;
  for (int j = 0; j < kN / 2; ++j) {
    codes[j] = static_cast<int8_t>((block.qs[j] & 15) - 8);
    codes[j + kN / 2] = static_cast<int8_t>((block.qs[j] >> 4) - 8);
  }
  for (int j = 0; j < kN; ++j) {
    on_lattice = on_lattice && round_to_grid(d * static_cast<float>(codes[j]), grid) == w[j];
  }
  *scale = to_float(to_bf16(d));
  if (std::all_of(w, w + kN, [](float x) { return x == 0; })) {
    std::fill_n(codes, kN, int8_t{0});
    *scale = 0;
    return Fit::kExact;
  }
  int8_t exact[kN];
  float found;
  if (find_bf16_scale(w, grid, d, exact, &found) ||
      (!on_lattice && find_small_bf16_scale(w, grid, exact, &found))) {
    std::copy_n(exact, kN, codes);
    *scale = found;
    prefer_positive(codes, scale);
    return Fit::kExact;
  }
  if (!on_lattice) {
    // The rounded scale may ask for other codes; its neighbours may do better.
    const float start = *scale;
    double best = std::numeric_limits<double>::infinity();
    for (const int step : {0, 1, -1}) {
      const float s = next_bf16(start, step);
      nearest_codes(w, s, exact);
      const double error = squared_error(w, s, exact);
      if (!(error < best)) continue;
      best = error;
      std::copy_n(exact, kN, codes);
      *scale = s;
    }
  }
  prefer_positive(codes, scale);
  return on_lattice ? Fit::kRoundedScale : Fit::kFitted;
}

bool fit_group(const float* w, int64_t n, DType codes_type, DType scale_type, int8_t* codes,
               float* scale) {
  const int bits = quant::code_bits(codes_type);
  const float lo = -static_cast<float>(1 << (bits - 1)), hi = -lo - 1;
  float most = 0, least = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(w[i])) return false;
    most = std::max(most, w[i]);
    least = std::min(least, w[i]);
  }
  std::fill_n(codes, n, int8_t{0});
  *scale = 0;
  const float largest = std::max(most, -least);
  if (largest == 0) return true;

  // The scale that just holds both ends, and finer ones that clip: how far depends on the bits.
  const float whole = std::max(most / hi, least / lo);
  const int tries = bits == 8 ? 9 : bits == 4 ? 17 : 25;
  const float shrink = bits == 8 ? 0.985f : bits == 4 ? 0.96f : 0.925f;
  float best = whole;
  double best_gain = 0;
  const auto consider = [&](float s) {
    const Sums sums = sum_products(w, n, 1.0f / s, lo, hi);
    const double gain = sums.qq > 0 ? sums.wq * sums.wq / sums.qq : 0;
    if (sums.wq <= 0 || !(gain > best_gain)) return;
    best_gain = gain;
    best = static_cast<float>(sums.wq / sums.qq);
  };
  float s = whole;
  for (int i = 0; i < tries; ++i, s *= shrink) consider(s);
  for (int i = 0; i < 3; ++i) consider(best);
  *scale = round_scale(best, scale_type);
  if (*scale == 0 || !std::isfinite(*scale) || !std::isfinite(1.0f / *scale)) {
    *scale = 0;  // too small for the type
    return true;
  }
  const float inverse = 1.0f / *scale;
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = static_cast<int8_t>(std::nearbyint(std::clamp(w[i] * inverse, lo, hi)));
  }
  return true;
}

}  // namespace carat::convert
