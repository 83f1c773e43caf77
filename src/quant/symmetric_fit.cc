#include "quant/symmetric_fit.h"

#include "quant/blocks.h"
#include "quant/codes.h"
#include "quant/lanes.h"
#include "quant/search/table.h"

namespace carat::quant {
namespace {

using search::SymmetricDraft;
using search::SymmetricSteps;

constexpr int kSub = 16;  // elements of a sub-block, and sub-blocks of a block
static_assert(kSub == search::kMaxSubs);

class Fit {
 public:
  Fit(const float* x, const float* weights, SymmetricGrid grid) noexcept
      : search_(search::searches()), x_(x), weights_(weights), grid_(grid) {
    columns_.weighted = weights != nullptr;
    search_.columns(x, kSub, columns_.x);
    if (columns_.weighted) search_.columns(weights, kSub, columns_.w);
  }

  SymmetricDraft best() const noexcept {
    SymmetricSteps searched;
    float plain[kSub];
    search_.symmetric_steps(columns_, grid_, searched, plain);
    // Rounding the scales can undo what the search won, so the plain rule stays a candidate.
    SymmetricDraft best = draft_from_steps(plain, whole_range(plain), 0);
    const float whole = whole_range(searched.step);
    for (const float d : {whole, search_.least_rounding(searched, grid_, whole)}) {
      const SymmetricDraft draft = draft_from_steps(searched.step, d, 2);
      if (draft.error <= best.error) best = draft;
    }
    return best;
  }

  void code_all(const SymmetricDraft& draft, int8_t* codes) const noexcept {
    const auto lo = static_cast<float>(-grid_.code_levels);
    const auto hi = static_cast<float>(grid_.code_levels - 1);
    for (int b = 0; b < kSub; ++b) {
      const float step = draft.d * static_cast<float>(draft.scale[b]);
      const float inverse = step != 0.0f ? 1.0f / step : 0.0f;
      for (int i = kSub * b; i < kSub * (b + 1); i += kLanes) {
        store_codes(nearest_codes(load(x_ + i) * inverse, lo, hi), codes + i);
      }
    }
  }

 private:
  static float rounded(double x) noexcept { return to_float(to_finite_f16(static_cast<float>(x))); }

  // The d that loses least with the draft's scales and codes, in binary16. No product of x and code
  // has the sign that the others have not, so sums in any order agree within 2^-44.
  float refit(const SymmetricDraft& draft) const noexcept {
    constexpr double kUnsure = 0x1p-40;
    search::SymmetricSums sums = search_.symmetric_sums(columns_, grid_, draft);
    const double d = sums.xq / sums.qq;
    if (sums.qq > 0.0 && rounded(d * (1 - kUnsure)) == rounded(d * (1 + kUnsure))) {
      return rounded(d);
    }
    int8_t codes[kSuperBlock];
    code_all(draft, codes);
    sums = {};
    for (int e = 0; e < kSuperBlock; ++e) {
      const double q = static_cast<double>(draft.scale[e / kSub]) * codes[e];
      const double w = weights_ != nullptr ? weights_[e] : 1.0;
      sums.xq += w * q * x_[e];
      sums.qq += w * q * q;
    }
    return sums.qq > 0.0 ? rounded(sums.xq / sums.qq) : draft.d;
  }

  // d such that the largest step gets the lowest scale, all of the range being usable only there.
  float whole_range(const float* steps) const noexcept {
    return signed_extremum(steps, kSub) / static_cast<float>(-grid_.scale_levels);
  }

  SymmetricDraft draft_from_steps(const float* steps, float d, int refits) const noexcept {
    SymmetricDraft best;
    best.d = to_float(to_finite_f16(d));
    search_.symmetric_scales(columns_, grid_, steps, best);
    for (int i = 0; i < refits; ++i) {
      SymmetricDraft next;
      next.d = refit(best);
      if (next.d == best.d) break;
      search_.symmetric_scales(columns_, grid_, steps, next);
      if (!(next.error < best.error)) break;
      best = next;
    }
    return best;
  }

  const search::Searches& search_;
  const float* x_;
  const float* weights_;
  SymmetricGrid grid_;
  search::BlockColumns columns_;
};

}  // namespace

SymmetricCodes fit_symmetric(const float* x, const float* weights, SymmetricGrid grid) noexcept {
  const Fit fit(x, weights, grid);
  const SymmetricDraft draft = fit.best();
  SymmetricCodes out;
  out.d = to_f16(draft.d);
  for (int b = 0; b < kSub; ++b) out.scale[b] = draft.scale[b];
  fit.code_all(draft, out.code);
  return out;
}

}  // namespace carat::quant
