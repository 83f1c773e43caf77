#include "quant/affine_fit.h"

#include <algorithm>
#include <cmath>

#include "quant/blocks.h"
#include "quant/codes.h"
#include "quant/lanes.h"
#include "quant/search/table.h"

namespace carat::quant {
namespace {

using search::AffineDraft;
using search::AffineSums;
using search::kMaxSubs;

constexpr int kRefits = 2;

// A sub-block is coded as step * code - min, neither negative.
struct Line {
  float step = 0.0f;
  float min = 0.0f;
};

struct Scales {
  double d, dmin;
};

class Fit {
 public:
  Fit(const float* x, const float* weights, AffineGrid grid) noexcept
      : search_(search::searches()),
        x_(x),
        weights_(weights),
        grid_(grid),
        subs_(kSuperBlock / grid.sub) {
    columns_.weighted = weights != nullptr;
    search_.columns(x, grid.sub, columns_.x);
    if (columns_.weighted) search_.columns(weights, grid.sub, columns_.w);
  }

  AffineCodes codes() const noexcept {
    const AffineDraft draft = best_draft();
    AffineCodes out;
    out.d = to_f16(draft.d);
    out.dmin = to_f16(draft.dmin);
    for (int b = 0; b < subs_; ++b) {
      out.scale[b] = static_cast<uint8_t>(draft.scale[b]);
      out.min[b] = static_cast<uint8_t>(draft.min[b]);
    }
    code_all(draft, out.code);
    return out;
  }

 private:
  static Line line_of(const AffineDraft& draft, int b) noexcept {
    return {draft.d * static_cast<float>(draft.scale[b]),
            draft.dmin * static_cast<float>(draft.min[b])};
  }

  void code_all(const AffineDraft& draft, uint8_t* codes) const noexcept {
    const auto hi = static_cast<float>(grid_.code_levels);
    for (int b = 0; b < subs_; ++b) {
      const Line line = line_of(draft, b);
      const float inverse = line.step != 0.0f ? 1.0f / line.step : 0.0f;
      for (int i = grid_.sub * b; i < grid_.sub * (b + 1); i += kLanes) {
        const Lanes q = nearest_codes((load(x_ + i) + line.min) * inverse, 0.0f, hi);
        store_codes(q, codes + i);
      }
    }
  }

  // The sums element by element, as every machine makes them.
  AffineSums sums_in_order(const AffineDraft& draft) const noexcept {
    uint8_t codes[kSuperBlock];
    code_all(draft, codes);
    AffineSums s = {};
    for (int i = 0; i < kSuperBlock; ++i) {
      const double a = static_cast<double>(codes[i]) * draft.scale[i / grid_.sub];
      const double b = draft.min[i / grid_.sub], x = x_[i];
      const double u = weights_ != nullptr ? weights_[i] : 1.0;
      s.aa += u * a * a;
      s.bb += u * b * b;
      s.ab += u * a * b;
      s.xa += u * x * a;
      s.xb += u * x * b;
    }
    return s;
  }

  // The d and dmin that lose least, before they are rounded.
  static Scales solve(const AffineSums& s, const AffineDraft& draft) noexcept {
    const double determinant = s.aa * s.bb - s.ab * s.ab;
    if (determinant > 0) {
      return {(s.xa * s.bb - s.xb * s.ab) / determinant, (s.xa * s.ab - s.xb * s.aa) / determinant};
    }
    return {s.aa > 0 ? s.xa / s.aa : draft.d, draft.dmin};
  }

  static float rounded(double x) noexcept { return to_float(to_finite_f16(static_cast<float>(x))); }

  // The same from sums in any order, where that is sure to give the same binary16 numbers: a sum of
  // 256 products is within 2^-44 of the sum of their magnitudes, which Cauchy and Schwarz bound.
  static bool solve_surely(const AffineSums& s, Scales& out) noexcept {
    constexpr double kUnsure = 0x1p-36;
    const double determinant = s.aa * s.bb - s.ab * s.ab;
    const double doubt = kUnsure * s.aa * s.bb;
    if (!(determinant > 2 * doubt)) return false;
    const double d = (s.xa * s.bb - s.xb * s.ab) / determinant;
    const double dmin = (s.xa * s.ab - s.xb * s.aa) / determinant;
    const double d_doubt = 2 * (kUnsure * std::sqrt(s.xx * s.aa) * s.bb + std::fabs(d) * doubt);
    const double min_doubt =
        2 * (kUnsure * std::sqrt(s.xx * s.bb) * s.aa + std::fabs(dmin) * doubt);
    const double d_off = d_doubt / determinant, min_off = min_doubt / determinant;
    if (!(d - d_off > 0 && dmin - min_off > 0)) return false;
    out = {d, dmin};
    return rounded(d - d_off) == rounded(d + d_off) &&
           rounded(dmin - min_off) == rounded(dmin + min_off);
  }

  // d and dmin that lose least with the draft's codes, scales and minimums.
  void refit(const AffineDraft& draft, AffineDraft& next) const noexcept {
    next.d = draft.d;
    next.dmin = draft.dmin;
    Scales scales;
    if (!solve_surely(search_.affine_sums(columns_, grid_, draft), scales)) {
      scales = solve(sums_in_order(draft), draft);
    }
    if (!(scales.d >= 0 && scales.dmin >= 0)) return;
    next.d = rounded(scales.d);
    next.dmin = rounded(scales.dmin);
  }

  AffineDraft best_draft() const noexcept {
    float steps[kMaxSubs], mins[kMaxSubs];
    search_.affine_lines(x_, weights_, grid_, steps, mins);
    Line largest;
    for (int b = 0; b < subs_; ++b) {
      largest.step = std::max(largest.step, steps[b]);
      largest.min = std::max(largest.min, mins[b]);
    }
    const auto top = static_cast<float>(grid_.scale_levels);
    AffineDraft best;
    best.d = to_float(to_finite_f16(largest.step / top));
    best.dmin = to_float(to_finite_f16(largest.min / top));
    search_.affine_scales(columns_, grid_, steps, mins, best);
    for (int i = 0; i < kRefits; ++i) {
      AffineDraft next;
      refit(best, next);
      if (next.d == best.d && next.dmin == best.dmin) break;
      search_.affine_scales(columns_, grid_, steps, mins, next);
      if (!(next.error < best.error)) break;
      best = next;
    }
    return best;
  }

  const search::Searches& search_;
  const float* x_;
  const float* weights_;
  AffineGrid grid_;
  int subs_;
  search::BlockColumns columns_;
};

}  // namespace

AffineCodes fit_affine(const float* x, const float* weights, AffineGrid grid) noexcept {
  return Fit(x, weights, grid).codes();
}

}  // namespace carat::quant
