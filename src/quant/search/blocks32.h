// The searches of blocks of 32 weighted elements (quant/weighted_fit.h), for any width.
#pragma once

#include "quant/blocks.h"
#include "quant/search/affine.h"
#include "quant/search/lines.h"
#include "quant/search/table.h"

namespace carat::quant::search {
namespace {

// Factors on the inverse step that brings the extremum to the outermost code: finely around that,
// then more and more of the extremum is cut off. Twice, for a search from each end.
struct ScaleCuts {
  static constexpr int kEach = 39, kCount = 2 * kEach;
  alignas(64) float factor[kCount + 16] = {};
  constexpr ScaleCuts() {
    for (int i = 0; i < kCount + 16; ++i) {
      const int k = (i < kCount ? i % kEach : kEach - 1) - 10;
      factor[i] = k <= 11 ? 1.0f + 0.0125f * static_cast<float>(k)
                          : 1.1375f + 0.05f * static_cast<float>(k - 11);
    }
  }
};
constexpr ScaleCuts kScaleCuts;

template <class Isa>
float scaled_step(const float* x, const float* w, CodeEnds ends, float extremum) {
  using V = Floats<Isa>;
  const Elements<Isa, true> source{x, w, nullptr};
  const V low = all<Isa>(ends.lo), high = all<Isa>(ends.hi), none = {};
  const int count = ends.lo == -ends.hi ? ScaleCuts::kEach : ScaleCuts::kCount;
  alignas(64) float loss[ScaleCuts::kCount + 16], step[ScaleCuts::kCount + 16];
  int c = 0;
  do {
    const V place = load<V>(kPlaces.place + c);
    const V from = place < static_cast<float>(ScaleCuts::kEach) ? all<Isa>(ends.lo / extremum)
                                                                : all<Isa>(ends.hi / extremum);
    const V inverse = from * load<V>(kScaleCuts.factor + c);
    V xq_sum[4], qq_sum[4];
    for (int l = 0; l < 4; ++l) {
      V xq_of = {}, qq_of = {};
      for (int i = l; i < kBlock; i += 4) {
        const V v = source.x(i);
        const V q = nearest_codes<Isa>(v * inverse, low, high);
        const V wq = source.w(i) * q;
        xq_of += v * wq;
        qq_of += q * wq;
      }
      xq_sum[l] = xq_of;
      qq_sum[l] = qq_of;
    }
    const V xq = total(xq_sum), qq = total(qq_sum);
    // The least-squares scale xq / qq lowers the error by xq^2 / qq.
    const V s = xq / qq;
    const Ints<Isa> counts = (qq > 0.0f) & (place < static_cast<float>(count));
    store(loss + c, counts ? -(xq * s) : none);
    store(step + c, s);
  } while ((c += Isa::kWidth) < count);
  const Least least = least_of<Isa>(loss, count);
  return least.value < 0.0f ? step[least.at] : 0.0f;
}

template <class Isa>
void scaled_errors(const float* x, const float* w, CodeEnds ends, const float* steps, int n,
                   float* errors) {
  using V = Floats<Isa>;
  const Elements<Isa, true> source{x, w, nullptr};
  const V low = all<Isa>(ends.lo), high = all<Isa>(ends.hi);
  for (int c = 0; c < n; c += Isa::kWidth) {
    const V step = load<V>(steps + c);
    const V inverse = inverse_of_all<Isa>(step);
    V sums[4];
    for (int l = 0; l < 4; ++l) {
      V error = {};
      for (int i = l; i < kBlock; i += 4) {
        const V v = source.x(i);
        const V e = v - step * nearest_codes<Isa>(v * inverse, low, high);
        error += source.w(i) * e * e;
      }
      sums[l] = error;
    }
    store(errors + c, total(sums));
  }
}

template <class Isa>
void line_errors(const float* x, const float* w, float hi, const float* steps, const float* offsets,
                 int n, float* errors) {
  using V = Floats<Isa>;
  const Elements<Isa, true> source{x, w, nullptr};
  for (int c = 0; c < n; c += Isa::kWidth) {
    store(errors + c, measure<Isa, true, kBlock, false, true>(source, load<V>(steps + c),
                                                              load<V>(offsets + c), hi)
                          .error);
  }
}

template <class Isa>
void refine_lines(const float* x, const float* w, float hi, const float* steps,
                  const float* offsets, int n, WeightedLine& best) {
  using V = Floats<Isa>;
  alignas(64) float wx[kBlock];
  for (int i = 0; i < kBlock; ++i) wx[i] = w[i] * x[i];
  const Weight weight = weight_of<true, kBlock>(w, wx);
  const Elements<Isa, true> source{x, w, wx};
  LineList<Isa, kMostLines + 16> list;
  // The line before each vector: one equal to the one before it was measured already.
  alignas(64) float next_step[kMostLines + 32], next_offset[kMostLines + 32];
  next_step[0] = next_offset[0] = 0.0f;  // a step of 0 is no candidate
  for (int c = 0; c < n; c += Isa::kWidth) {
    const V place = load<V>(kPlaces.place + c);
    const auto s = measure<Isa, true, kBlock, true, false>(source, load<V>(steps + c),
                                                           load<V>(offsets + c), hi);
    const V determinant = weight.w * s.qq - s.q * s.q;
    const V step = (weight.w * s.xq - weight.wx * s.q) / determinant;
    const V offset = (s.qq * weight.wx - s.q * s.xq) / determinant;
    const Ints<Isa> usable = (determinant > 0.0f) & (step > 0.0f) & (place < static_cast<float>(n));
    store(next_step + c + 1, usable ? step : V{});
    store(next_offset + c + 1, usable ? offset : V{});
    list.add(step, offset, place,
             usable & ~same_lines<Isa>(next_step, next_offset, c + 1, next_step, next_offset, c));
  }
  if (list.n == 0) return;
  list.fill_up();
  alignas(64) float error[kMostLines + 32];
  int c = 0;
  do {
    store(error + c, measure<Isa, true, kBlock, false, true>(source, load<V>(list.step + c),
                                                             load<V>(list.offset + c), hi)
                         .error);
  } while ((c += Isa::kWidth) < list.n);
  const Least least = least_of<Isa>(error, list.n);
  if (best.error >= 0 && !(least.value < best.error)) return;
  best = {list.step[least.at], list.offset[least.at], least.value};
}

}  // namespace
}  // namespace carat::quant::search
