// The searches of K blocks with minimums (quant/affine_fit.h), for any width.
#pragma once

#include "quant/search/lines.h"
#include "quant/search/table.h"

namespace carat::quant::search {
namespace {

// The least-squares lines for the codes that (step, min) give.
template <class Isa>
CARAT_SEARCH void refit_affine(Weight weight, const LineSums<Isa>& s, Floats<Isa>& step,
                               Floats<Isa>& min) {
  using V = Floats<Isa>;
  const V none = {};
  const V determinant = weight.w * s.qq - s.q * s.q;
  const Ints<Isa> regular = determinant > 0.0f;
  V new_step = regular ? (weight.w * s.xq - weight.wx * s.q) / determinant : step;
  V new_min = regular ? (s.q * s.xq - s.qq * weight.wx) / determinant : min;
  const Ints<Isa> negative = new_min < 0.0f;
  new_step = negative ? (s.qq > 0.0f ? s.xq / s.qq : none) : new_step;
  new_min = negative ? none : new_min;
  const Ints<Isa> usable = new_step >= 0.0f;
  step = usable ? new_step : step;
  min = usable ? new_min : min;
}

struct Extent {
  float lo, hi;  // lo at most 0
};
template <int kElements>
CARAT_SEARCH Extent extent_of(const float* x) {
  using Quad = float __attribute__((vector_size(16)));
  Quad lo = {}, hi = load<Quad>(x);
  for (int i = 0; i < kElements; i += 4) {
    const Quad v = load<Quad>(x + i);
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
  }
  Extent e{lo[0], hi[0]};
  for (int l = 1; l < 4; ++l) {
    e.lo = lo[l] < e.lo ? lo[l] : e.lo;
    e.hi = hi[l] > e.hi ? hi[l] : e.hi;
  }
  return e;
}

// From a step that reaches the ends to one that cuts about two codes off; further and finer where
// the ends may count little.
template <bool kWeighted>
struct Cuts {
  static constexpr int kFirst = kWeighted ? -20 : -5, kLast = kWeighted ? 60 : 15;
  static constexpr int kCount = kLast - kFirst + 1;
  alignas(64) float levels[kCount + 16] = {};  // to be added to the largest code
  constexpr Cuts() {
    for (int i = 0; i < kCount + 16; ++i) {
      const int k = i < kCount ? kFirst + i : kLast;
      levels[i] = (kWeighted ? 0.05f : 0.1f) * static_cast<float>(k);
    }
  }
};
template <bool kWeighted>
constexpr Cuts<kWeighted> kCuts;

// The line for a sub-block that loses least, were it stored exactly: every cut is refitted, and
// with weights refitted once more. Neighbouring cuts often end in the same line, which is measured
// once; the first of several equally good ones wins.
template <class Isa, bool kWeighted, int kElements>
CARAT_SEARCH void best_affine_line(const float* x, const float* w, float top, float& best_step,
                                   float& best_min) {
  using V = Floats<Isa>;
  constexpr int kWidth = Isa::kWidth, kCount = Cuts<kWeighted>::kCount;
  using List = LineList<Isa, kCount + 2>;
  const Extent extent = extent_of<kElements>(x);
  const float range = extent.hi - extent.lo;
  best_step = range / top;
  best_min = -extent.lo;
  if (!(range > 0.0f)) return;
  alignas(64) float wx[kElements];
  for (int i = 0; i < kElements; ++i) wx[i] = kWeighted ? w[i] * x[i] : x[i];
  const Weight weight = weight_of<kWeighted, kElements>(w, wx);
  const Elements<Isa, kWeighted> elements{x, w, wx};

  // Line 0 is that of the whole range, not refitted.
  alignas(64) float steps[List::kRoom + 16], mins[List::kRoom + 16];
  steps[0] = best_step;
  mins[0] = best_min;
  for (int i = 0; i < kCount; i += kWidth) {
    V step = range / (top + load<V>(kCuts<kWeighted>.levels + i)), min = all<Isa>(best_min);
    refit_affine<Isa>(weight,
                      measure<Isa, kWeighted, kElements, true, false>(elements, step, -min, top),
                      step, min);
    store(steps + i + 1, step);
    store(mins + i + 1, min);
  }
  List first;  // the offsets of this list are minimums
  first.step[0] = best_step;
  first.offset[0] = best_min;
  first.order[0] = 0.0f;
  first.n = 1;
  for (int i = 1; i <= kCount; i += kWidth) {
    const V place = load<V>(kPlaces.place + i);
    const Ints<Isa> last = place > static_cast<float>(kCount), one = place == 1.0f;
    first.add(load<V>(steps + i), load<V>(mins + i), place,
              ~last & (one | ~same_lines<Isa>(steps, mins, i, steps, mins, i - 1)));
  }
  first.fill_up();
  alignas(64) float error[List::kRoom];
  alignas(64) float next_steps[List::kRoom + 16], next_mins[List::kRoom + 16];
  int c = 0;
  do {
    V step = load<V>(first.step + c), min = load<V>(first.offset + c);
    const auto s = measure<Isa, kWeighted, kElements, kWeighted, true>(elements, step, -min, top);
    store(error + c, s.error);
    if constexpr (kWeighted) {
      refit_affine<Isa>(weight, s, step, min);
      store(next_steps + c, step);
      store(next_mins + c, min);
    }
  } while ((c += kWidth) < first.n);
  const Least least = least_of<Isa>(error, first.n);
  best_step = first.step[least.at];
  best_min = first.offset[least.at];
  if constexpr (kWeighted) {
    // A line that was measured just before or will be next changes nothing.
    List second;
    for (c = 1; c < first.n; c += kWidth) {
      const float *const s = first.step, *const m = first.offset;
      const V place = load<V>(kPlaces.place + c);
      const Ints<Isa> known = (place > static_cast<float>(first.n - 1)) |
                              same_lines<Isa>(next_steps, next_mins, c, s, m, c) |
                              same_lines<Isa>(next_steps, next_mins, c, s, m, c - 1) |
                              ((place < static_cast<float>(first.n - 1)) &
                               same_lines<Isa>(next_steps, next_mins, c, s, m, c + 1)) |
                              ((place > 1.0f) & same_lines<Isa>(next_steps, next_mins, c,
                                                                next_steps, next_mins, c - 1));
      second.add(load<V>(next_steps + c), load<V>(next_mins + c), place, ~known);
    }
    if (second.n == 0) return;
    second.fill_up();
    c = 0;
    do {
      const V step = load<V>(second.step + c), min = load<V>(second.offset + c);
      store(error + c,
            measure<Isa, kWeighted, kElements, false, true>(elements, step, -min, top).error);
    } while ((c += kWidth) < second.n);
    const Least next = least_of<Isa>(error, second.n);
    const bool earlier = second.order[next.at] < static_cast<float>(least.at);
    if (next.value < least.value || (next.value == least.value && earlier)) {
      best_step = second.step[next.at];
      best_min = second.offset[next.at];
    }
  }
}

template <class Isa, bool kWeighted, int kElements>
void affine_lines_of(const float* x, const float* w, float top, float* steps, float* mins) {
  for (int b = 0; b < kSuperBlock / kElements; ++b) {
    best_affine_line<Isa, kWeighted, kElements>(
        x + kElements * b, kWeighted ? w + kElements * b : nullptr, top, steps[b], mins[b]);
  }
}

template <class Isa>
void affine_lines(const float* x, const float* w, AffineGrid grid, float* steps, float* mins) {
  const auto top = static_cast<float>(grid.code_levels);
  if (grid.sub == 16) {
    w != nullptr ? affine_lines_of<Isa, true, 16>(x, w, top, steps, mins)
                 : affine_lines_of<Isa, false, 16>(x, w, top, steps, mins);
  } else {
    w != nullptr ? affine_lines_of<Isa, true, 32>(x, w, top, steps, mins)
                 : affine_lines_of<Isa, false, 32>(x, w, top, steps, mins);
  }
}

// Vectors that hold all sub-blocks of a block, and how many times one holds each.
template <class Isa, int kElements>
struct Layout {
  static constexpr int kSubs = kSuperBlock / kElements;
  static constexpr int kGroups = kSubs > Isa::kWidth ? kSubs / Isa::kWidth : 1;
  static constexpr int kCopies = kSubs < Isa::kWidth ? Isa::kWidth / kSubs : 1;
};

template <class Isa, int kElements>
CARAT_SEARCH void columns_of(const float* from, float* to) {
  using L = Layout<Isa, kElements>;
  for (int g = 0; g < L::kGroups; ++g) {
    for (int i = 0; i < kElements; ++i) {
      for (int l = 0; l < Isa::kWidth; ++l) {
        *to++ = from[kElements * (g * Isa::kWidth + l % L::kSubs) + i];
      }
    }
  }
}

template <class Isa>
void columns(const float* from, int sub, float* to) {
  sub == 16 ? columns_of<Isa, 16>(from, to) : columns_of<Isa, 32>(from, to);
}

// `per_sub[b]` for the sub-block b of each lane of group g.
template <class Isa, int kElements>
CARAT_SEARCH Floats<Isa> spread(const float* per_sub, int g) {
  using L = Layout<Isa, kElements>;
  alignas(64) float lanes[Isa::kWidth];
  for (int l = 0; l < Isa::kWidth; ++l) lanes[l] = per_sub[g * Isa::kWidth + l % L::kSubs];
  return load<Floats<Isa>>(lanes);
}

// Of the nine pairs around the wanted ones the first that loses least.
template <class Isa, bool kWeighted, int kElements>
CARAT_SEARCH void affine_scales_of(const BlockColumns& columns, AffineGrid grid, const float* steps,
                                   const float* mins, AffineDraft& draft) {
  using V = Floats<Isa>;
  using L = Layout<Isa, kElements>;
  const auto top = static_cast<float>(grid.scale_levels);
  const auto hi = static_cast<float>(grid.code_levels);
  alignas(64) float error[kMaxSubs * (L::kCopies > 1 ? 2 : 1)], order[Isa::kWidth];
  for (int g = 0; g < L::kGroups; ++g) {
    const int at = g * kElements * Isa::kWidth;
    const Columns<Isa, kWeighted> source{columns.x + at, columns.w + at};
    const V step = spread<Isa, kElements>(steps, g), min = spread<Isa, kElements>(mins, g);
    const V around = draft.d > 0.0f ? round_clamped_all<Isa>(step / draft.d, 0.0f, top) : V{};
    const V beside = draft.dmin > 0.0f ? round_clamped_all<Isa>(min / draft.dmin, 0.0f, top) : V{};
    V least = all<Isa>(kInfinity), best_scale = {}, best_min = {}, best_order = {};
    for (int c = 0; c < 9; c += L::kCopies) {
      alignas(64) float up[Isa::kWidth], right[Isa::kWidth];
      for (int l = 0; l < Isa::kWidth; ++l) {
        const int n = c + l / L::kSubs;
        order[l] = static_cast<float>(n);
        up[l] = n < 9 ? static_cast<float>(n / 3 - 1) : kInfinity;
        right[l] = static_cast<float>(n % 3 - 1);
      }
      const V s = around + load<V>(up), m = beside + load<V>(right);
      const Ints<Isa> valid = (s >= 0.0f) & (s <= top) & (m >= 0.0f) & (m <= top);
      const V e = measure<Isa, kWeighted, kElements, false, true>(source, draft.d * s,
                                                                  -(draft.dmin * m), hi)
                      .error;
      const Ints<Isa> better = valid & (e < least);
      least = better ? e : least;
      best_scale = better ? s : best_scale;
      best_min = better ? m : best_min;
      best_order = better ? load<V>(order) : best_order;
    }
    const int first = g * Isa::kWidth;
    alignas(64) float scale[Isa::kWidth], minimum[Isa::kWidth];
    store(error + (L::kCopies > 1 ? 0 : first), least);
    store(scale, best_scale);
    store(minimum, best_min);
    store(order, best_order);
    for (int b = 0; b < (L::kCopies > 1 ? L::kSubs : Isa::kWidth); ++b) {
      int l = b;
      if constexpr (L::kCopies > 1) {
        const int o = b + L::kSubs;
        if (error[o] < error[b] || (error[o] == error[b] && order[o] < order[b])) l = o;
        error[b] = error[l];
      }
      draft.scale[first + b] = static_cast<int>(scale[l]);
      draft.min[first + b] = static_cast<int>(minimum[l]);
    }
  }
  draft.error = 0.0;
  for (int b = 0; b < L::kSubs; ++b) draft.error += error[b];
}

template <class Isa>
void affine_scales(const BlockColumns& c, AffineGrid grid, const float* steps, const float* mins,
                   AffineDraft& draft) {
  if (grid.sub == 16) {
    c.weighted ? affine_scales_of<Isa, true, 16>(c, grid, steps, mins, draft)
               : affine_scales_of<Isa, false, 16>(c, grid, steps, mins, draft);
  } else {
    c.weighted ? affine_scales_of<Isa, true, 32>(c, grid, steps, mins, draft)
               : affine_scales_of<Isa, false, 32>(c, grid, steps, mins, draft);
  }
}

// In any order: see AffineSums.
template <class Isa, bool kWeighted, int kElements>
CARAT_SEARCH AffineSums affine_sums_of(const BlockColumns& columns, AffineGrid grid,
                                       const AffineDraft& draft) {
  using V = Floats<Isa>;
  using D = typename Isa::Doubles;
  using H = typename Isa::Halves;
  using L = Layout<Isa, kElements>;
  constexpr int kWidth = Isa::kWidth, kHalf = kWidth / 2;
  const auto hi = static_cast<float>(grid.code_levels);
  AffineSums total_of = {};
  for (int g = 0; g < L::kGroups; ++g) {
    const float* const x = columns.x + g * kElements * kWidth;
    const float* const w = columns.w + g * kElements * kWidth;
    alignas(64) float a[kElements * kWidth], scale[kWidth], step[kWidth], offset[kWidth];
    for (int l = 0; l < kWidth; ++l) {
      const int b = g * kWidth + l % L::kSubs;
      scale[l] = static_cast<float>(draft.scale[b]);
      step[l] = draft.d * scale[l];
      offset[l] = -(draft.dmin * static_cast<float>(draft.min[b]));
    }
    const V inverse = inverse_of_all<Isa>(load<V>(step)), from = load<V>(offset);
    for (int i = 0; i < kElements; ++i) {
      const V v = (load<V>(x + i * kWidth) - from) * inverse;
      store(a + i * kWidth, nearest_codes<Isa>(v, V{}, all<Isa>(hi)) * load<V>(scale));
    }
    for (int first = 0; first < kWidth / L::kCopies; first += kHalf) {
      D aa = {}, xa = {}, xx = {}, ua = {}, ux = {}, u = {};
      for (int i = first; i < kElements * kWidth; i += kWidth) {
        const D ai = __builtin_convertvector(load<H>(a + i), D);
        const D xi = __builtin_convertvector(load<H>(x + i), D);
        D ui = D{} + 1.0;
        if constexpr (kWeighted) ui = __builtin_convertvector(load<H>(w + i), D);
        const D uai = ui * ai, uxi = ui * xi;
        aa += uai * ai;
        xa += uai * xi;
        xx += uxi * xi;
        ua += uai;
        ux += uxi;
        u += ui;
      }
      for (int l = 0; l < kHalf; ++l) {
        const double b = draft.min[g * kWidth + first + l];
        total_of.aa += aa[l];
        total_of.bb += b * b * u[l];
        total_of.ab += b * ua[l];
        total_of.xa += xa[l];
        total_of.xb += b * ux[l];
        total_of.xx += xx[l];
      }
    }
  }
  return total_of;
}

template <class Isa>
AffineSums affine_sums(const BlockColumns& c, AffineGrid grid, const AffineDraft& draft) {
  if (grid.sub == 16) {
    return c.weighted ? affine_sums_of<Isa, true, 16>(c, grid, draft)
                      : affine_sums_of<Isa, false, 16>(c, grid, draft);
  }
  return c.weighted ? affine_sums_of<Isa, true, 32>(c, grid, draft)
                    : affine_sums_of<Isa, false, 32>(c, grid, draft);
}

}  // namespace
}  // namespace carat::quant::search
