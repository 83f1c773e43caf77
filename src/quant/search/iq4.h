// The searches of IQ4_NL and IQ4_XS (quant/iq4_fit.h), for any width.
#pragma once

#include "quant/iq4_fit.h"
#include "quant/search/affine.h"
#include "quant/search/table.h"
#include "quant/search/vectors.h"

namespace carat::quant::search {
namespace {

constexpr float iq4_level(int code) { return static_cast<float>(kIq4Levels[code]); }

// Halfway between neighbouring levels.
struct Iq4Middles {
  float middle[15] = {};
  constexpr Iq4Middles() {
    for (int i = 0; i < 15; ++i) middle[i] = 0.5f * (iq4_level(i) + iq4_level(i + 1));
  }
};
constexpr Iq4Middles kIq4Middles;

// Cells of equal width, numbered by their lowest four bits, with at most one of those in each: what
// lies in a cell has one of two levels. Where a cell ends does not matter, so that
// rounding may put what lies there into either cell.
struct Iq4Cells {
  static constexpr float kFactor = 0.0705f,
                         kShift = 0.35f;  // number: nearest to v * factor + shift
  static constexpr float kLowest = -120.0f, kHighest = 101.125f;  // what lies outside is clamped
  alignas(64) float middle[16] = {};
  alignas(64) float below[16] = {}, above[16] = {};

  static constexpr int cell_of(float v) {
    const float place = v * kFactor + kShift + 0.5f;
    const int whole = static_cast<int>(place);
    return whole - (static_cast<float>(whole) > place ? 1 : 0);
  }
  constexpr Iq4Cells() {
    for (int n = -8, code = 0; n < 8; ++n) {
      const bool holds_one = code < 15 && cell_of(kIq4Middles.middle[code]) == n;
      middle[n & 15] = holds_one ? kIq4Middles.middle[code] : kInfinity;
      below[n & 15] = iq4_level(code);
      code += holds_one ? 1 : 0;
      above[n & 15] = iq4_level(code);
    }
  }
};
constexpr Iq4Cells kIq4Cells;
static_assert(Iq4Cells::cell_of(Iq4Cells::kLowest) == -8);
static_assert(Iq4Cells::cell_of(Iq4Cells::kHighest) == 7);
static_assert(kIq4Cells.above[7] == iq4_level(15));

// Levels, by adding up what lies between them; integers, so that any order gives the same.
template <class Isa>
CARAT_SEARCH Floats<Isa> iq4_levels_by_steps(Floats<Isa> v) {
  const Floats<Isa> none = {};
  Floats<Isa> sums[3] = {all<Isa>(iq4_level(0)), none, none};
  for (int i = 0; i < 15; ++i) {
    const Floats<Isa> up = all<Isa>(iq4_level(i + 1) - iq4_level(i));
    sums[i % 3] += v > kIq4Middles.middle[i] ? up : none;
  }
  return sums[0] + sums[1] + sums[2];
}

// From the lowest level to far inside, then from the highest. Where the extremum may count little,
// much of it may be cut off; the levels being uneven, much of their range may also be left out.
template <bool kWeighted>
struct Iq4Cuts {
  static constexpr int kReach = kWeighted ? 20 : 7;
  static constexpr int kEach = 2 * kReach + 1, kCount = 2 * kEach;
  alignas(64) float level[kCount + 16] = {};  // for the extremum
  constexpr Iq4Cuts() {
    for (int i = 0; i < kCount + 16; ++i) {
      const int n = i < kCount ? i : kCount - 1;
      const int k = n % kEach - kReach;
      level[i] = iq4_level(n < kEach ? 0 : 15) + static_cast<float>(kWeighted ? 2 * k : k);
    }
  }
};
template <bool kWeighted>
constexpr Iq4Cuts<kWeighted> kIq4Cuts;

template <class Isa, bool kWeighted>
CARAT_SEARCH float iq4_step_of(const float* x, const float* w, float extremum) {
  using V = Floats<Isa>;
  constexpr int kCount = Iq4Cuts<kWeighted>::kCount;
  const Elements<Isa, kWeighted> source{x, w, nullptr};
  alignas(64) float xq[kCount + 16], qq[kCount + 16];
  for (int c = 0; c < kCount; c += Isa::kWidth) {
    const V inverse = load<V>(kIq4Cuts<kWeighted>.level + c) / extremum;
    V xq_sum[4], qq_sum[4];
    for (int l = 0; l < 4; ++l) {
      V xq_of = {}, qq_of = {};
      for (int i = l; i < kBlock; i += 4) {
        const V v = source.x(i);
        const V q = Isa::iq4_levels(v * inverse);
        const V wq = kWeighted ? source.w(i) * q : q;
        xq_of += v * wq;
        qq_of += q * wq;
      }
      xq_sum[l] = xq_of;
      qq_sum[l] = qq_of;
    }
    store(xq + c, total(xq_sum));
    store(qq + c, total(qq_sum));
  }
  float best = 0.0f, best_gain = -1.0f;
  for (int i = 0; i < kCount; ++i) {
    // With the least-squares step xq / qq the error is sum x^2 - xq^2 / qq; qq > 0.
    if (xq[i] * xq[i] > best_gain * qq[i]) {
      best_gain = xq[i] * xq[i] / qq[i];
      best = xq[i] / qq[i];
    }
  }
  return best;
}

template <class Isa>
float iq4_step(const float* x, const float* w, float extremum) {
  return w != nullptr ? iq4_step_of<Isa, true>(x, w, extremum)
                      : iq4_step_of<Isa, false>(x, w, extremum);
}

// The wanted scale, or the one below or above it where that loses less.
template <class Isa, bool kWeighted>
CARAT_SEARCH void iq4_scales_of(const BlockColumns& columns, const float* steps, float d,
                                int* scales) {
  using V = Floats<Isa>;
  using L = Layout<Isa, kBlock>;
  for (int g = 0; g < L::kGroups; ++g) {
    const int at = g * kBlock * Isa::kWidth;
    const Columns<Isa, kWeighted> source{columns.x + at, columns.w + at};
    const V around = round_clamped_all<Isa>(spread<Isa, kBlock>(steps, g) / d, -32.0f, 31.0f);
    V least = all<Isa>(kInfinity), best = around;
    for (const float beside : {0.0f, -1.0f, 1.0f}) {
      const V scale = around + beside;
      const V step = d * scale;
      const V inverse = inverse_of_all<Isa>(step);
      V errors[4];
      for (int l = 0; l < 4; ++l) {
        V error = {};
        for (int i = l; i < kBlock; i += 4) {
          const V x = source.x(i);
          const V e = x - step * Isa::iq4_levels(x * inverse);
          error += (kWeighted ? source.w(i) * e : e) * e;
        }
        errors[l] = error;
      }
      const V error = total(errors);
      const Ints<Isa> better = (scale >= -32.0f) & (scale <= 31.0f) & (error < least);
      least = better ? error : least;
      best = better ? scale : best;
    }
    for (int l = 0; l < Isa::kWidth / L::kCopies; ++l) {
      scales[g * Isa::kWidth + l] = static_cast<int>(best[l]);
    }
  }
}

template <class Isa>
void iq4_scales(const BlockColumns& c, const float* steps, float d, int* scales) {
  c.weighted ? iq4_scales_of<Isa, true>(c, steps, d, scales)
             : iq4_scales_of<Isa, false>(c, steps, d, scales);
}

template <class Isa>
void iq4_codes(const float* x, float inverse, uint8_t* codes) {
  using V = Floats<Isa>;
  for (int i = 0; i < kBlock; i += Isa::kWidth) {
    const V v = load<V>(x + i) * inverse;
    Ints<Isa> code = {};
    for (int m = 0; m < 15; ++m) code -= v > kIq4Middles.middle[m];
    for (int l = 0; l < Isa::kWidth; ++l) codes[i + l] = static_cast<uint8_t>(code[l]);
  }
}

}  // namespace
}  // namespace carat::quant::search
