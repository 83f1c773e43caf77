// The searches of K blocks without minimums (quant/symmetric_fit.h), for any width. A lane is a
// sub-block: 16 elements, 16 of them in a block.
#pragma once

#include "quant/search/table.h"
#include "quant/search/vectors.h"

namespace carat::quant::search {
namespace {

constexpr int kSymmetricSub = 16;

template <class Isa>
struct CodeRange {
  Floats<Isa> lo, hi;
  CARAT_SEARCH explicit CodeRange(SymmetricGrid grid)
      : lo(all<Isa>(static_cast<float>(-grid.code_levels))),
        hi(all<Isa>(static_cast<float>(grid.code_levels - 1))) {}
  CARAT_SEARCH Floats<Isa> code(Floats<Isa> v) const { return nearest_codes<Isa>(v, lo, hi); }
};

// The first element of largest magnitude, with its sign.
template <class Isa, class Source>
CARAT_SEARCH Floats<Isa> extremum_of(const Source& source) {
  using V = Floats<Isa>;
  V extremum = {}, largest = {};
  for (int i = 0; i < kSymmetricSub; ++i) {
    const V x = source.x(i);
    const V magnitude = x < 0.0f ? -x : x;
    const Ints<Isa> larger = magnitude > largest;
    largest = larger ? magnitude : largest;
    extremum = larger ? x : extremum;
  }
  return extremum;
}

template <class Isa, bool kWeighted>
CARAT_SEARCH void symmetric_steps_of(const BlockColumns& columns, SymmetricGrid grid,
                                     SymmetricSteps& found, float* plain) {
  using V = Floats<Isa>;
  constexpr int kVector = kSymmetricSub * Isa::kWidth;
  const CodeRange<Isa> range(grid);
  const auto lo = static_cast<float>(-grid.code_levels);
  for (int g = 0; g < kMaxSubs / Isa::kWidth; ++g) {
    const Columns<Isa, kWeighted> source{columns.x + g * kVector, columns.w + g * kVector};
    alignas(64) float wx[kVector];
    for (int i = 0; i < kSymmetricSub; ++i) store(wx + i * Isa::kWidth, source.wx(i));
    const V extremum = extremum_of<Isa>(source), none = {};
    V best_gain = all<Isa>(-1.0f), best_xq = {}, best_qq = {};
    for (int k = -12; k <= (kWeighted ? 32 : 12); ++k) {
      // Where the extremum may count little, up to half of it is cut off.
      const float cut = k > 12 ? 0.05f * static_cast<float>(k - 12) : 0.0f;
      const V inverse = (lo * (1.0f + cut) - 0.1f * static_cast<float>(k)) / extremum;
      V xq_sum[4], qq_sum[4];
      for (int l = 0; l < 4; ++l) {
        V xq_of = {}, qq_of = {};
        for (int i = l; i < kSymmetricSub; i += 4) {
          const V q = range.code(source.x(i) * inverse);
          xq_of += load<V>(wx + i * Isa::kWidth) * q;
          qq_of += (kWeighted ? source.w(i) * q : q) * q;
        }
        xq_sum[l] = xq_of;
        qq_sum[l] = qq_of;
      }
      const V xq = total(xq_sum), qq = total(qq_sum);
      // With the least-squares step xq / qq the error is sum x^2 - xq^2 / qq.
      const Ints<Isa> better = (qq > 0.0f) & (xq * xq > best_gain * qq);
      best_gain = better ? xq * xq / qq : best_gain;
      best_xq = better ? xq : best_xq;
      best_qq = better ? qq : best_qq;
    }
    const Ints<Isa> empty = (extremum == 0.0f) | !(best_qq > 0.0f);
    store(found.step + g * Isa::kWidth, empty ? none : best_xq / best_qq);
    store(found.growth + g * Isa::kWidth, empty ? none : best_qq);
    store(plain + g * Isa::kWidth, extremum / lo);
  }
}

template <class Isa>
void symmetric_steps(const BlockColumns& c, SymmetricGrid grid, SymmetricSteps& found,
                     float* plain) {
  c.weighted ? symmetric_steps_of<Isa, true>(c, grid, found, plain)
             : symmetric_steps_of<Isa, false>(c, grid, found, plain);
}

constexpr int kRoundings = 41;
struct RoundingFactors {
  alignas(64) float factor[kRoundings + 16] = {};
  constexpr RoundingFactors() {
    for (int i = 0; i < kRoundings + 16; ++i) {
      factor[i] = 1.0f + 0.005f * static_cast<float>((i < kRoundings ? i : kRoundings - 1) - 20);
    }
  }
};
constexpr RoundingFactors kFactors;

// A lane is a d.
template <class Isa>
float least_rounding(const SymmetricSteps& steps, SymmetricGrid grid, float whole) {
  using V = Floats<Isa>;
  const auto lo = static_cast<float>(-grid.scale_levels);
  const auto hi = static_cast<float>(grid.scale_levels - 1);
  float best = whole, least = -1.0f;
  for (int c = 0; c < kRoundings; c += Isa::kWidth) {
    const V d = whole * load<V>(kFactors.factor + c);
    V error = {};
    for (int b = 0; b < kMaxSubs; ++b) {
      const V scale = round_clamped_all<Isa>(steps.step[b] / d, lo, hi);
      const V e = steps.step[b] - d * scale;
      error += steps.growth[b] * e * e;
    }
    const V inverse = 1.0f / d;
    for (int l = 0; l < Isa::kWidth && c + l < kRoundings; ++l) {
      if (!(inverse[l] < kInfinity && inverse[l] > -kInfinity)) return best;
      if (least >= 0.0f && !(error[l] < least)) continue;
      least = error[l];
      best = d[l];
    }
  }
  return best;
}

// Of the scales around the wanted ones the first that loses least.
template <class Isa, bool kWeighted>
CARAT_SEARCH void symmetric_scales_of(const BlockColumns& columns, SymmetricGrid grid,
                                      const float* steps, SymmetricDraft& draft) {
  using V = Floats<Isa>;
  constexpr int kVector = kSymmetricSub * Isa::kWidth;
  const CodeRange<Isa> range(grid);
  const auto lo = static_cast<float>(-grid.scale_levels);
  const auto hi = static_cast<float>(grid.scale_levels - 1);
  draft.error = 0.0;
  for (int g = 0; g < kMaxSubs / Isa::kWidth; ++g) {
    const Columns<Isa, kWeighted> source{columns.x + g * kVector, columns.w + g * kVector};
    const V step = load<V>(steps + g * Isa::kWidth);
    const V around = draft.d != 0.0f ? round_clamped_all<Isa>(step / draft.d, lo, hi) : V{};
    V least = all<Isa>(kInfinity), best_scale = {};
    for (int n = -1; n <= 1; ++n) {
      const V scale = around + static_cast<float>(n);
      const V s = draft.d * scale;
      const V inverse = inverse_of_all<Isa>(s);
      V errors[4];
      for (int l = 0; l < 4; ++l) {
        V sum = {};
        for (int i = l; i < kSymmetricSub; i += 4) {
          const V x = source.x(i);
          const V e = x - s * range.code(x * inverse);
          sum += (kWeighted ? source.w(i) * e : e) * e;
        }
        errors[l] = sum;
      }
      const V error = total(errors);
      const Ints<Isa> better = (scale >= lo) & (scale <= hi) & (error < least);
      least = better ? error : least;
      best_scale = better ? scale : best_scale;
    }
    for (int l = 0; l < Isa::kWidth; ++l) {
      draft.scale[g * Isa::kWidth + l] = static_cast<int>(best_scale[l]);
      draft.error += least[l];
    }
  }
}

template <class Isa>
void symmetric_scales(const BlockColumns& c, SymmetricGrid grid, const float* steps,
                      SymmetricDraft& draft) {
  c.weighted ? symmetric_scales_of<Isa, true>(c, grid, steps, draft)
             : symmetric_scales_of<Isa, false>(c, grid, steps, draft);
}

template <class Isa, bool kWeighted>
CARAT_SEARCH SymmetricSums symmetric_sums_of(const BlockColumns& columns, SymmetricGrid grid,
                                             const SymmetricDraft& draft) {
  using V = Floats<Isa>;
  using D = typename Isa::Doubles;
  using H = typename Isa::Halves;
  constexpr int kWidth = Isa::kWidth;
  const CodeRange<Isa> range(grid);
  SymmetricSums sums = {};
  for (int g = 0; g < kMaxSubs / kWidth; ++g) {
    const float* const x = columns.x + g * kSymmetricSub * kWidth;
    const float* const w = columns.w + g * kSymmetricSub * kWidth;
    alignas(64) float q[kSymmetricSub * kWidth], scales[kWidth];
    for (int l = 0; l < kWidth; ++l) scales[l] = static_cast<float>(draft.scale[g * kWidth + l]);
    const V scale = load<V>(scales);
    const V inverse = inverse_of_all<Isa>(draft.d * scale);
    for (int i = 0; i < kSymmetricSub * kWidth; i += kWidth) {
      store(q + i, scale * range.code(load<V>(x + i) * inverse));
    }
    D xq = {}, qq = {};
    for (int i = 0; i < kSymmetricSub * kWidth; i += kWidth / 2) {
      const D qi = __builtin_convertvector(load<H>(q + i), D);
      D wq = qi;
      if constexpr (kWeighted) wq = qi * __builtin_convertvector(load<H>(w + i), D);
      xq += wq * __builtin_convertvector(load<H>(x + i), D);
      qq += wq * qi;
    }
    for (int l = 0; l < kWidth / 2; ++l) {
      sums.xq += xq[l];
      sums.qq += qq[l];
    }
  }
  return sums;
}

template <class Isa>
SymmetricSums symmetric_sums(const BlockColumns& c, SymmetricGrid grid,
                             const SymmetricDraft& draft) {
  return c.weighted ? symmetric_sums_of<Isa, true>(c, grid, draft)
                    : symmetric_sums_of<Isa, false>(c, grid, draft);
}

}  // namespace
}  // namespace carat::quant::search
