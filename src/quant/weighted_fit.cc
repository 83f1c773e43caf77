#include "quant/weighted_fit.h"

#include <cmath>

#include "quant/codes.h"
#include "quant/lanes.h"

namespace carat::quant {
namespace {

float inverse_of(float step) noexcept { return step != 0.0f ? 1.0f / step : 0.0f; }

// The binary16 numbers beside d, and d.
template <class Try>
void try_neighbours(F16 d, Try try_scale) noexcept {
  for (const int step : {0, -1, 1}) {
    const F16 n{static_cast<uint16_t>(d.bits + step)};
    if ((n.bits & 0x7c00u) != 0x7c00u) try_scale(n);
  }
}

class ScaleFit {
 public:
  ScaleFit(const float* x, const float* w, int lo, int hi) noexcept
      : x_(x), w_(w), lo_(static_cast<float>(lo)), hi_(static_cast<float>(hi)) {}

  ScaledCodes best() noexcept {
    const float extremum = signed_extremum(x_, kBlock);
    const bool mirrored = lo_ == -hi_;
    try_scale(to_finite_f16(mirrored ? std::fabs(extremum) / hi_ : extremum / lo_));
    if (std::isfinite(1.0f / extremum)) {
      search(lo_ / extremum);
      if (!mirrored) search(hi_ / extremum);
      // Once more with the codes that the best scale gives.
      const Sums s = sums_with(inverse_of(step_));
      try_around(step_);
      if (s.qq > 0) try_around(s.xq / s.qq);
    }
    ScaledCodes out;
    out.d = d_;
    const float inverse = inverse_of(to_float(d_));
    for (int i = 0; i < kBlock; i += kLanes) {
      const Lanes q = nearest_codes(load(x_ + i) * inverse, lo_, hi_);
      for (int l = 0; l < kLanes; ++l) out.code[i + l] = static_cast<int8_t>(q[l]);
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
      const Lanes q = nearest_codes(v * inverse, lo_, hi_);
      const Lanes wq = load(w_ + i) * q;
      xq += v * wq;
      qq += q * wq;
    }
    return {sum_of(xq), sum_of(qq)};
  }

  // `inverse` brings the extremum to the outermost code. Finely around that, then more and more of
  // the extremum is cut off.
  void search(float inverse) noexcept {
    for (int k = -10; k <= 28; ++k) {
      const float factor = k <= 11 ? 1.0f + 0.0125f * static_cast<float>(k)
                                   : 1.1375f + 0.05f * static_cast<float>(k - 11);
      const Sums s = sums_with(inverse * factor);
      // The least-squares scale xq / qq lowers the error by xq^2 / qq.
      if (s.qq > 0 && s.xq * (s.xq / s.qq) > gain_) {
        gain_ = s.xq * (s.xq / s.qq);
        step_ = s.xq / s.qq;
      }
    }
  }

  void try_around(float d) noexcept {
    try_neighbours(to_finite_f16(d), [&](F16 n) { try_scale(n); });
  }

  void try_scale(F16 d) noexcept {
    const float step = to_float(d), inverse = inverse_of(step);
    Lanes error = {};
    for (int i = 0; i < kBlock; i += kLanes) {
      const Lanes v = load(x_ + i);
      const Lanes e = v - step * nearest_codes(v * inverse, lo_, hi_);
      error += load(w_ + i) * e * e;
    }
    const float total = sum_of(error);
    if (error_ >= 0 && !(total < error_)) return;
    error_ = total;
    d_ = d;
  }

  const float* x_;
  const float* w_;
  float lo_, hi_;
  float gain_ = 0, step_ = 0;  // of the search
  float error_ = -1;           // with d_; negative: nothing was tried
  F16 d_ = {};
};

class LineFit {
 public:
  LineFit(const float* x, const float* w, int levels) noexcept
      : x_(x), w_(w), hi_(static_cast<float>(levels)) {}

  LineCodes best() noexcept {
    const Range range = range_of(x_, kBlock);
    const float width = range.max - range.min;
    try_line(to_finite_f16(width / hi_), to_finite_f16(range.min));
    if (std::isfinite(1.0f / width)) {
      // From a step that does not use all codes to one that cuts three off, for each at the lower
      // end, at the upper, or between.
      for (int k = -3; k <= 15; ++k) {
        const float step = width / (hi_ + 0.2f * static_cast<float>(k));
        const float room = width - step * hi_;
        for (int part = 0; part <= 4; ++part) {
          refine({step, range.min + 0.25f * static_cast<float>(part) * room});
        }
      }
      // Outliers leave several valleys: all steps once more from where the best line begins.
      for (int i = 0; i < 2 && line_error_ >= 0; ++i) {
        const float offset = line_.offset;
        for (int k = -6; k <= 15; ++k) {
          refine({width / (hi_ + 0.2f * static_cast<float>(k)), offset});
        }
        refine(line_);
      }
      round(line_);
    }
    LineCodes out;
    out.d = d_;
    out.m = m_;
    for (int i = 0; i < kBlock; i += kLanes) {
      const Lanes q = codes_of(load(x_ + i), {to_float(d_), to_float(m_)});
      for (int l = 0; l < kLanes; ++l) out.code[i + l] = static_cast<uint8_t>(q[l]);
    }
    return out;
  }

 private:
  struct Line {
    float step, offset;
  };

  Lanes codes_of(Lanes v, Line line) const noexcept {
    return nearest_codes((v - line.offset) * inverse_of(line.step), 0.0f, hi_);
  }

  float error_of(Line line) const noexcept {
    Lanes error = {};
    for (int i = 0; i < kBlock; i += kLanes) {
      const Lanes v = load(x_ + i);
      const Lanes e = v - (line.step * codes_of(v, line) + line.offset);
      error += load(w_ + i) * e * e;
    }
    return sum_of(error);
  }

  struct Sums {
    float w = 0, x = 0, q = 0, xq = 0, qq = 0;
  };
  Sums sums_with(Line line) const noexcept {
    Lanes w = {}, x = {}, q = {}, xq = {}, qq = {};
    for (int i = 0; i < kBlock; i += kLanes) {
      const Lanes v = load(x_ + i), u = load(w_ + i);
      const Lanes code = codes_of(v, line);
      w += u;
      x += u * v;
      q += u * code;
      xq += u * v * code;
      qq += u * code * code;
    }
    return {sum_of(w), sum_of(x), sum_of(q), sum_of(xq), sum_of(qq)};
  }

  // The least-squares line for the codes that `line` gives, kept if it is the best so far.
  void refine(Line line) noexcept {
    const Sums s = sums_with(line);
    const float determinant = s.w * s.qq - s.q * s.q;
    if (!(determinant > 0)) return;
    const Line next{(s.w * s.xq - s.x * s.q) / determinant,
                    (s.qq * s.x - s.q * s.xq) / determinant};
    if (!(next.step > 0)) return;
    const float error = error_of(next);
    if (line_error_ >= 0 && !(error < line_error_)) return;
    line_error_ = error;
    line_ = next;
  }

  // In binary16: the step and its neighbours, with the offset that suits each.
  void round(Line line) noexcept {
    if (line_error_ < 0) return;
    try_neighbours(to_finite_f16(line.step), [&](F16 d) {
      const float step = to_float(d);
      const Sums s = sums_with({step, line.offset});
      try_line(d, to_finite_f16(line.offset));
      try_neighbours(to_finite_f16((s.x - step * s.q) / s.w), [&](F16 m) { try_line(d, m); });
    });
  }

  void try_line(F16 d, F16 m) noexcept {
    const float error = error_of({to_float(d), to_float(m)});
    if (error_ >= 0 && !(error < error_)) return;
    error_ = error;
    d_ = d;
    m_ = m;
  }

  const float* x_;
  const float* w_;
  float hi_;
  Line line_ = {};
  float line_error_ = -1;  // of line_; negative: none
  F16 d_ = {}, m_ = {};
  float error_ = -1;
};

}  // namespace

ScaledCodes fit_scaled(const float* x, const float* w, int lo, int hi) noexcept {
  return ScaleFit(x, w, lo, hi).best();
}

LineCodes fit_line(const float* x, const float* w, int levels) noexcept {
  return LineFit(x, w, levels).best();
}

}  // namespace carat::quant
