#include "quant/weighted_fit.h"

#include <cmath>

#include "quant/codes.h"
#include "quant/lanes.h"
#include "quant/search/table.h"

namespace carat::quant {
namespace {

float inverse_of(float step) noexcept { return step != 0.0f ? 1.0f / step : 0.0f; }

// d and the binary16 numbers beside it.
template <class Use>
void for_neighbours(F16 d, Use use) noexcept {
  for (const int step : {0, -1, 1}) {
    const F16 n{static_cast<uint16_t>(d.bits + step)};
    if ((n.bits & 0x7c00u) != 0x7c00u) use(n);
  }
}

// Pairs of binary16 numbers to be tried, the first of those that lose least to be kept.
struct Trials {
  static constexpr int kMost = 16;
  int n = 0;
  F16 d[kMost] = {}, m[kMost] = {};
  alignas(64) float step[kMost] = {}, offset[kMost] = {}, error[kMost];

  void add(F16 first, F16 second = {}) noexcept {
    d[n] = first;
    m[n] = second;
    step[n] = to_float(first);
    offset[n++] = to_float(second);
  }
  // Of the errors filled in.
  int best() const noexcept {
    int at = 0;
    for (int i = 1; i < n; ++i) at = error[i] < error[at] ? i : at;
    return at;
  }
};

class ScaleFit {
 public:
  ScaleFit(const float* x, const float* w, int lo, int hi) noexcept
      : search_(search::searches()),
        x_(x),
        w_(w),
        ends_{static_cast<float>(lo), static_cast<float>(hi)} {}

  ScaledCodes best() noexcept {
    const float extremum = extremum_of_block(x_);
    const bool mirrored = ends_.lo == -ends_.hi;
    Trials trials;
    trials.add(to_finite_f16(mirrored ? std::fabs(extremum) / ends_.hi : extremum / ends_.lo));
    if (std::isfinite(1.0f / extremum)) {
      const float step = search_.scaled_step(x_, w_, ends_, extremum);
      for_neighbours(to_finite_f16(step), [&](F16 d) { trials.add(d); });
      // Once more with the codes that the best scale gives.
      const Sums s = sums_with(inverse_of(step));
      if (s.qq > 0) for_neighbours(to_finite_f16(s.xq / s.qq), [&](F16 d) { trials.add(d); });
    }
    search_.scaled_errors(x_, w_, ends_, trials.step, trials.n, trials.error);
    ScaledCodes out;
    out.d = trials.d[trials.best()];
    const float inverse = inverse_of(to_float(out.d));
    for (int i = 0; i < kBlock; i += kLanes) {
      store_codes(nearest_codes(load(x_ + i) * inverse, ends_.lo, ends_.hi), out.code + i);
    }
    return out;
  }

 private:
  struct Sums {
    float xq = 0, qq = 0;
  };

  Sums sums_with(float inverse) const noexcept {
    Lanes xq = {}, qq = {};
    for (int i = 0; i < kBlock; i += kLanes) {
      const Lanes v = load(x_ + i);
      const Lanes q = nearest_codes(v * inverse, ends_.lo, ends_.hi);
      const Lanes wq = load(w_ + i) * q;
      xq += v * wq;
      qq += q * wq;
    }
    return {sum_of(xq), sum_of(qq)};
  }

  const search::Searches& search_;
  const float* x_;
  const float* w_;
  search::CodeEnds ends_;
};

class LineFit {
 public:
  LineFit(const float* x, const float* w, int levels) noexcept
      : search_(search::searches()), x_(x), w_(w), hi_(static_cast<float>(levels)) {}

  LineCodes best() noexcept {
    const Range range = range_of(x_, kBlock);
    const float width = range.max - range.min;
    Trials trials;
    trials.add(to_finite_f16(width / hi_), to_finite_f16(range.min));
    if (std::isfinite(1.0f / width)) {
      search(range.min, width);
      if (line_.error >= 0) round(trials);
    }
    search_.line_errors(x_, w_, hi_, trials.step, trials.offset, trials.n, trials.error);
    const int at = trials.best();
    LineCodes out;
    out.d = trials.d[at];
    out.m = trials.m[at];
    for (int i = 0; i < kBlock; i += kLanes) {
      store_codes(codes_of(load(x_ + i), to_float(out.d), to_float(out.m)), out.code + i);
    }
    return out;
  }

 private:
  void search(float min, float width) noexcept {
    alignas(64) float steps[search::kLineRoom], offsets[search::kLineRoom];
    // From a step that does not use all codes to one that cuts three off, for each at the lower
    // end, at the upper, or between.
    int n = 0;
    for (int k = -3; k <= 15; ++k) {
      const float step = width / (hi_ + 0.2f * static_cast<float>(k));
      const float room = width - step * hi_;
      for (int part = 0; part <= 4; ++part, ++n) {
        steps[n] = step;
        offsets[n] = min + 0.25f * static_cast<float>(part) * room;
      }
    }
    refine(steps, offsets, n);
    // Outliers leave several valleys: all steps once more from where the best line begins.
    for (int i = 0; i < 2 && line_.error >= 0; ++i) {
      n = 0;
      for (int k = -6; k <= 15; ++k, ++n) {
        steps[n] = width / (hi_ + 0.2f * static_cast<float>(k));
        offsets[n] = line_.offset;
      }
      refine(steps, offsets, n);
      refine_best();
    }
  }

  // The least-squares lines for the codes that n lines give; the best so far is kept.
  void refine(float* steps, float* offsets, int n) noexcept {
    for (int i = n; i % search::kLanesAtMost != 0; ++i) {
      steps[i] = steps[n - 1];
      offsets[i] = offsets[n - 1];
    }
    search_.refine_lines(x_, w_, hi_, steps, offsets, n, line_);
  }

  // The same for the best line itself.
  void refine_best() noexcept {
    const Sums s = sums_with(line_.step, line_.offset);
    const float determinant = s.w * s.qq - s.q * s.q;
    if (!(determinant > 0)) return;
    const float step = (s.w * s.xq - s.x * s.q) / determinant;
    const float offset = (s.qq * s.x - s.q * s.xq) / determinant;
    if (!(step > 0)) return;
    const float error = error_of(step, offset);
    if (error < line_.error) line_ = {step, offset, error};
  }

  // In binary16: the step and its neighbours, with the offset that suits each.
  void round(Trials& trials) const noexcept {
    for_neighbours(to_finite_f16(line_.step), [&](F16 d) {
      const float step = to_float(d);
      const Sums s = sums_with(step, line_.offset);
      trials.add(d, to_finite_f16(line_.offset));
      for_neighbours(to_finite_f16((s.x - step * s.q) / s.w), [&](F16 m) { trials.add(d, m); });
    });
  }

  Lanes codes_of(Lanes v, float step, float offset) const noexcept {
    return nearest_codes((v - offset) * inverse_of(step), 0.0f, hi_);
  }

  struct Sums {
    float w = 0, x = 0, q = 0, xq = 0, qq = 0;
  };
  Sums sums_with(float step, float offset) const noexcept {
    Lanes w = {}, x = {}, q = {}, xq = {}, qq = {};
    for (int i = 0; i < kBlock; i += kLanes) {
      const Lanes v = load(x_ + i), u = load(w_ + i);
      const Lanes code = codes_of(v, step, offset);
      w += u;
      x += u * v;
      q += u * code;
      xq += u * v * code;
      qq += u * code * code;
    }
    return {sum_of(w), sum_of(x), sum_of(q), sum_of(xq), sum_of(qq)};
  }

  float error_of(float step, float offset) const noexcept {
    Lanes error = {};
    for (int i = 0; i < kBlock; i += kLanes) {
      const Lanes v = load(x_ + i);
      const Lanes e = v - (step * codes_of(v, step, offset) + offset);
      error += load(w_ + i) * e * e;
    }
    return sum_of(error);
  }

  const search::Searches& search_;
  const float* x_;
  const float* w_;
  float hi_;
  search::WeightedLine line_ = {0, 0, -1};
};

}  // namespace

ScaledCodes fit_scaled(const float* x, const float* w, int lo, int hi) noexcept {
  return ScaleFit(x, w, lo, hi).best();
}

LineCodes fit_line(const float* x, const float* w, int levels) noexcept {
  return LineFit(x, w, levels).best();
}

}  // namespace carat::quant
