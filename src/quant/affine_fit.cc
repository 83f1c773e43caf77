#include "quant/affine_fit.h"

#include <algorithm>

#include "quant/blocks.h"
#include "quant/codes.h"
#include "quant/lanes.h"
#include "quant/weighing.h"

namespace carat::quant {
namespace {

constexpr int kMaxSubs = 16;
constexpr int kRefits = 2;

// A sub-block is coded as step * code - min, neither negative.
struct Line {
  float step = 0.0f;
  float min = 0.0f;
};

struct Draft {
  float d = 0.0f, dmin = 0.0f;  // exactly binary16 values
  int scale[kMaxSubs] = {};
  int min[kMaxSubs] = {};
  double error = 0.0;  // sum of squared differences
};

template <class Weights>
class Fit {
 public:
  Fit(const float* x, Weights weights, AffineGrid grid) noexcept
      : x_(x),
        weights_(weights),
        grid_(grid),
        subs_(kSuperBlock / grid.sub),
        hi_(static_cast<float>(grid.code_levels)) {}

  AffineCodes codes() const noexcept {
    const Draft draft = best_draft();
    AffineCodes out;
    out.d = to_f16(draft.d);
    out.dmin = to_f16(draft.dmin);
    for (int b = 0; b < subs_; ++b) {
      out.scale[b] = static_cast<uint8_t>(draft.scale[b]);
      out.min[b] = static_cast<uint8_t>(draft.min[b]);
      const Line line = line_of(draft, b);
      for (int i = grid_.sub * b; i < grid_.sub * (b + 1); i += kLanes) {
        const Lanes q = codes_of(load(x_ + i), line);
        for (int l = 0; l < kLanes; ++l) out.code[i + l] = static_cast<uint8_t>(q[l]);
      }
    }
    return out;
  }

 private:
  static Line line_of(const Draft& draft, int b) noexcept {
    return {draft.d * static_cast<float>(draft.scale[b]),
            draft.dmin * static_cast<float>(draft.min[b])};
  }

  Lanes codes_of(Lanes v, Line line) const noexcept {
    const float inverse = line.step != 0.0f ? 1.0f / line.step : 0.0f;
    return nearest_codes((v + line.min) * inverse, 0.0f, hi_);
  }

  float error_of(const float* x, Weights w, Line line) const noexcept {
    Lanes error = {};
    for (int i = 0; i < grid_.sub; i += kLanes) {
      const Lanes v = load(x + i);
      const Lanes e = v - (line.step * codes_of(v, line) - line.min);
      error += w.at(i) * e * e;
    }
    return sum_of(error);
  }

  // The line that loses least with the codes that `line` gives.
  Line refit_line(const float* x, Weights w, Line line) const noexcept {
    Lanes w_sum = {}, x_sum = {}, q_sum = {}, xq_sum = {}, qq_sum = {};
    for (int i = 0; i < grid_.sub; i += kLanes) {
      const Lanes v = load(x + i);
      const Lanes q = codes_of(v, line);
      const Lanes u = w.at(i);
      w_sum += u;
      x_sum += u * v;
      q_sum += u * q;
      xq_sum += u * v * q;
      qq_sum += u * q * q;
    }
    const float n = sum_of(w_sum);
    const float sx = sum_of(x_sum), sq = sum_of(q_sum), sxq = sum_of(xq_sum), sqq = sum_of(qq_sum);
    const float determinant = n * sqq - sq * sq;
    Line best = line;
    if (determinant > 0.0f) {
      best.step = (n * sxq - sx * sq) / determinant;
      best.min = (sq * sxq - sqq * sx) / determinant;
    }
    if (best.min < 0.0f) {
      best.min = 0.0f;
      best.step = sqq > 0.0f ? sxq / sqq : 0.0f;
    }
    return best.step >= 0.0f ? best : line;
  }

  // The line for a sub-block that loses least, were it stored exactly.
  Line best_line(const float* x, Weights w) const noexcept {
    float lo = 0.0f;
    float hi = x[0];
    for (int i = 0; i < grid_.sub; ++i) {
      lo = std::min(lo, x[i]);
      hi = std::max(hi, x[i]);
    }
    const float range = hi - lo;
    Line best{range / hi_, -lo};
    if (!(range > 0.0f)) return best;
    float best_error = error_of(x, w, best);
    // From a step that reaches the ends to one that cuts about two codes off; further and finer
    // where the ends may count little.
    constexpr int kFirst = Weights::kEven ? -5 : -20, kLast = Weights::kEven ? 15 : 60;
    constexpr float kUnit = Weights::kEven ? 0.1f : 0.05f;
    for (int k = kFirst; k <= kLast; ++k) {
      const float levels = hi_ + kUnit * static_cast<float>(k);
      Line line{range / levels, -lo};
      for (int i = 0; i < (Weights::kEven ? 1 : 2); ++i) {
        line = refit_line(x, w, line);
        const float error = error_of(x, w, line);
        if (!(error < best_error)) continue;
        best_error = error;
        best = line;
      }
    }
    return best;
  }

  // Scale, minimum and error of every sub-block for given d and dmin and wanted lines.
  void fill(const Line* lines, Draft& draft) const noexcept {
    draft.error = 0.0;
    const int top = grid_.scale_levels;
    for (int b = 0; b < subs_; ++b) {
      const int scale = draft.d > 0.0f ? round_clamped(lines[b].step / draft.d, 0, top) : 0;
      const int min = draft.dmin > 0.0f ? round_clamped(lines[b].min / draft.dmin, 0, top) : 0;
      float best = -1.0f;
      for (int s = std::max(scale - 1, 0); s <= std::min(scale + 1, top); ++s) {
        for (int m = std::max(min - 1, 0); m <= std::min(min + 1, top); ++m) {
          const Line line{draft.d * static_cast<float>(s), draft.dmin * static_cast<float>(m)};
          const float error = error_of(x_ + grid_.sub * b, weights_ + grid_.sub * b, line);
          if (best < 0.0f || error < best) {
            best = error;
            draft.scale[b] = s;
            draft.min[b] = m;
          }
        }
      }
      draft.error += best;
    }
  }

  // d and dmin that lose least with the draft's codes, scales and minimums.
  void refit(const Draft& draft, Draft& next) const noexcept {
    double aa = 0, bb = 0, ab = 0, xa = 0, xb = 0;  // a = scale * code, b = min
    for (int s = 0; s < subs_; ++s) {
      const Line line = line_of(draft, s);
      const double b = draft.min[s];
      for (int i = grid_.sub * s; i < grid_.sub * (s + 1); i += kLanes) {
        const Lanes q = codes_of(load(x_ + i), line);
        for (int l = 0; l < kLanes; ++l) {
          const double a = double{q[l]} * draft.scale[s], x = x_[i + l];
          const double u = weights_[i + l];
          aa += u * a * a;
          bb += u * b * b;
          ab += u * a * b;
          xa += u * x * a;
          xb += u * x * b;
        }
      }
    }
    const double determinant = aa * bb - ab * ab;
    next.d = draft.d;
    next.dmin = draft.dmin;
    double d = aa > 0 ? xa / aa : draft.d, dmin = draft.dmin;
    if (determinant > 0) {
      d = (xa * bb - xb * ab) / determinant;
      dmin = (xa * ab - xb * aa) / determinant;
    }
    if (!(d >= 0 && dmin >= 0)) return;
    next.d = to_float(to_finite_f16(static_cast<float>(d)));
    next.dmin = to_float(to_finite_f16(static_cast<float>(dmin)));
  }

  Draft best_draft() const noexcept {
    Line lines[kMaxSubs];
    Line largest;
    for (int b = 0; b < subs_; ++b) {
      lines[b] = best_line(x_ + grid_.sub * b, weights_ + grid_.sub * b);
      largest.step = std::max(largest.step, lines[b].step);
      largest.min = std::max(largest.min, lines[b].min);
    }
    const auto top = static_cast<float>(grid_.scale_levels);
    Draft best;
    best.d = to_float(to_finite_f16(largest.step / top));
    best.dmin = to_float(to_finite_f16(largest.min / top));
    fill(lines, best);
    for (int i = 0; i < kRefits; ++i) {
      Draft next;
      refit(best, next);
      if (next.d == best.d && next.dmin == best.dmin) break;
      fill(lines, next);
      if (!(next.error < best.error)) break;
      best = next;
    }
    return best;
  }

  const float* x_;
  Weights weights_;
  AffineGrid grid_;
  int subs_;
  float hi_;
};

}  // namespace

AffineCodes fit_affine(const float* x, const float* weights, AffineGrid grid) noexcept {
  if (weights == nullptr) return Fit(x, EvenWeights{}, grid).codes();
  return Fit(x, ElementWeights{weights}, grid).codes();
}

}  // namespace carat::quant
