#include "convert/scale_shift.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/half.h"

namespace carat::convert {
namespace {

struct Counts {
  int minus8 = 0, sevens = 0, nonzero = 0;  // sevens: of either sign
};

Counts count_codes(const int8_t* codes) {
  Counts c;
  for (int64_t i = 0; i < kShiftGroup; ++i) {
    c.minus8 += codes[i] == -8;
    c.sevens += codes[i] == 7 || codes[i] == -7;
    c.nonzero += codes[i] != 0;
  }
  return c;
}

bool is_near(float weight, float expected) {
  return std::fabs(weight - expected) <= std::fabs(expected) * (1.0f / 64);
}

// Whether code * step gives the weights. With `clipped`, a 7 of either sign may have been an 8.
bool gives(const int8_t* codes, float step, const float* weights, bool clipped) {
  for (int64_t i = 0; i < kShiftGroup; ++i) {
    if (is_near(weights[i], static_cast<float>(codes[i]) * step)) continue;
    const bool seven = codes[i] == 7 || codes[i] == -7;
    const float peak = codes[i] < 0 ? -8 * step : 8 * step;
    if (!clipped || !seven || !is_near(weights[i], peak)) return false;
  }
  return true;
}

}  // namespace

UnshiftedGroup undo_shift(const int8_t* codes, float scale) noexcept {
  using Kind = UnshiftedGroup::Kind;
  UnshiftedGroup g;
  std::copy(codes, codes + kShiftGroup, g.codes.begin());
  const Counts c = count_codes(codes);
  g.d = scale * kShiftBack;
  if (c.nonzero == 0) return g;
  if (c.minus8 > 0) {
    g.kind = Kind::kProven;
  } else if (c.sevens > 1) {
    g.kind = Kind::kAmbiguous;
  } else if (c.sevens == 1) {
    g.kind = Kind::kProven;
    const bool negative = std::find(codes, codes + kShiftGroup, -7) != codes + kShiftGroup;
    if (!negative) g.d = -g.d;
    for (int8_t& code : g.codes) {
      const bool peak = code == 7 || code == -7;
      code = static_cast<int8_t>(peak ? -8 : negative ? code : -code);
    }
  } else {
    g.kind = Kind::kForeign;
    g.d = scale;
  }
  return g;
}

float unshifted_step(float d, float scale) noexcept {
  const float nearest = to_float(to_bf16(d));
  if (nearest == 0 || !std::isfinite(nearest)) return nearest;
  for (const int step : {0, 1, -1}) {
    const uint32_t bits = std::bit_cast<uint32_t>(nearest) + (static_cast<uint32_t>(step) << 16);
    const float candidate = std::bit_cast<float>(bits);
    const float exported = to_float(to_bf16(8.0f * std::fabs(candidate) / 7.5f));
    if (exported == std::fabs(scale)) return candidate;
  }
  return nearest;
}

bool ShiftStats::follows_min_max() const {
  return groups > zero && foreign == 0 && negative_scales == 0;
}

void ShiftStats::add(const ShiftStats& other) {
  groups += other.groups;
  zero += other.zero;
  with_minus8 += other.with_minus8;
  single_peak += other.single_peak;
  ambiguous += other.ambiguous;
  foreign += other.foreign;
  negative_scales += other.negative_scales;
}

void count_groups(const int8_t* codes, const float* scales, int64_t n_groups, ShiftStats& stats) {
  stats.groups += n_groups;
  for (int64_t g = 0; g < n_groups; ++g) {
    const Counts c = count_codes(codes + g * kShiftGroup);
    stats.negative_scales += scales[g] < 0;
    if (c.nonzero == 0) {
      ++stats.zero;
    } else if (c.minus8 > 0) {
      ++stats.with_minus8;
    } else if (c.sevens > 0) {
      ++(c.sevens == 1 ? stats.single_peak : stats.ambiguous);
    } else {
      ++stats.foreign;
    }
  }
}

void ShiftPairs::add(const ShiftPairs& other) {
  groups += other.groups;
  shifted += other.shifted;
  as_stored += other.as_stored;
  neither += other.neither;
  proven += other.proven;
  proven_right += other.proven_right;
}

void compare_groups(const int8_t* codes, const float* scales, const float* weights,
                    int64_t n_groups, ShiftPairs& pairs) {
  for (int64_t g = 0; g < n_groups; ++g, codes += kShiftGroup, weights += kShiftGroup) {
    if (count_codes(codes).nonzero == 0) continue;
    ++pairs.groups;
    if (gives(codes, scales[g], weights, false)) {
      ++pairs.as_stored;
      continue;
    }
    if (!gives(codes, scales[g] * kShiftBack, weights, true)) {
      ++pairs.neither;
      continue;
    }
    ++pairs.shifted;
    const UnshiftedGroup u = undo_shift(codes, scales[g]);
    if (u.kind != UnshiftedGroup::Kind::kProven) continue;
    ++pairs.proven;
    pairs.proven_right += gives(u.codes.data(), u.d, weights, false);
  }
}

Json to_json(const ShiftStats& s) {
  return {{"groups", s.groups},
          {"zero", s.zero},
          {"with_minus8", s.with_minus8},
          {"single_peak", s.single_peak},
          {"ambiguous", s.ambiguous},
          {"foreign", s.foreign},
          {"negative_scales", s.negative_scales},
          {"follows_min_max", s.follows_min_max()}};
}

Json to_json(const ShiftPairs& p) {
  return {{"groups", p.groups},   {"shifted", p.shifted}, {"as_stored", p.as_stored},
          {"neither", p.neither}, {"proven", p.proven},   {"proven_right", p.proven_right}};
}

}  // namespace carat::convert
