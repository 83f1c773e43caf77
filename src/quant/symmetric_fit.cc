#include "quant/symmetric_fit.h"

#include <cmath>

#include "quant/blocks.h"
#include "quant/codes.h"
#include "quant/lanes.h"
#include "quant/weighing.h"

namespace carat::quant {
namespace {

constexpr int kSub = 16;  // elements of a sub-block, and sub-blocks of a block

// Codes and scales of a whole block, and what they lose.
struct Draft {
  float d = 0.0f;  // exactly a binary16 value
  int scale[kSub] = {};
  int8_t code[kSuperBlock] = {};
  double error = 0.0;  // sum of squared differences
};

template <class Weights>
class Fit {
 public:
  Fit(const float* x, Weights weights, SymmetricGrid grid) noexcept
      : x_(x),
        weights_(weights),
        lo_(static_cast<float>(-grid.code_levels)),
        hi_(static_cast<float>(grid.code_levels - 1)),
        scale_lo_(-grid.scale_levels),
        scale_hi_(grid.scale_levels - 1) {}

  Draft best() const noexcept {
    Step searched[kSub];
    Step plain[kSub];
    for (int b = 0; b < kSub; ++b) {
      searched[b] = best_step(x_ + kSub * b, weights_ + kSub * b);
      plain[b] = {signed_extremum(x_ + kSub * b, kSub) / lo_, 0.0f};
    }
    // Rounding the scales can undo what the search won, so the plain rule stays a candidate.
    Draft best = draft_from_steps(plain, whole_range(plain), 0);
    for (const float d : {whole_range(searched), least_rounding(searched)}) {
      const Draft draft = draft_from_steps(searched, d, 2);
      if (draft.error <= best.error) best = draft;
    }
    return best;
  }

 private:
  // What a sub-block wants to be multiplied with, and by how much its error grows with the square
  // of the distance from that.
  struct Step {
    float step = 0.0f, growth = 0.0f;
  };

  Lanes codes(Lanes v) const noexcept { return nearest_codes(v, lo_, hi_); }

  // Squared error of 16 elements coded with step s.
  float coding_error(const float* x, Weights w, float s) const noexcept {
    const float inverse = s != 0.0f ? 1.0f / s : 0.0f;
    Lanes error = {};
    for (int i = 0; i < kSub; i += kLanes) {
      const Lanes v = load(x + i);
      const Lanes e = v - s * codes(v * inverse);
      error += w.at(i) * e * e;
    }
    return sum_of(error);
  }

  // The step for 16 elements that loses least, were it stored exactly.
  Step best_step(const float* x, Weights w) const noexcept {
    const float extremum = signed_extremum(x, kSub);
    if (extremum == 0.0f) return {};
    Step best;
    float best_gain = -1.0f;
    for (int k = -12; k <= (Weights::kEven ? 12 : 32); ++k) {
      // Where the extremum may count little, up to half of it is cut off.
      const float cut = k > 12 ? 0.05f * static_cast<float>(k - 12) : 0.0f;
      const float inverse = (lo_ * (1.0f + cut) - 0.1f * static_cast<float>(k)) / extremum;
      Lanes xq_lanes = {};
      Lanes qq_lanes = {};
      for (int i = 0; i < kSub; i += kLanes) {
        const Lanes v = load(x + i);
        const Lanes q = codes(v * inverse);
        xq_lanes += w.at(i) * v * q;
        qq_lanes += w.at(i) * q * q;
      }
      const float xq = sum_of(xq_lanes);
      const float qq = sum_of(qq_lanes);
      // With the least-squares step xq / qq the error is sum x^2 - xq^2 / qq.
      if (qq > 0.0f && xq * xq > best_gain * qq) {
        best_gain = xq * xq / qq;
        best = {xq / qq, qq};
      }
    }
    return best;
  }

  // Scales, codes and error for a given d and wanted steps.
  void fill(const Step* steps, Draft& draft) const noexcept {
    draft.error = 0.0;
    for (int b = 0; b < kSub; ++b) {
      const float* xb = x_ + kSub * b;
      const int around =
          draft.d != 0.0f ? round_clamped(steps[b].step / draft.d, scale_lo_, scale_hi_) : 0;
      float best_error = 0.0f;
      bool first = true;
      for (int s = around - 1; s <= around + 1; ++s) {
        if (s < scale_lo_ || s > scale_hi_) continue;
        const float e = coding_error(xb, weights_ + kSub * b, draft.d * static_cast<float>(s));
        if (first || e < best_error) {
          draft.scale[b] = s;
          best_error = e;
          first = false;
        }
      }
      draft.error += best_error;
      const float step = draft.d * static_cast<float>(draft.scale[b]);
      const float inverse = step != 0.0f ? 1.0f / step : 0.0f;
      for (int i = 0; i < kSub; i += kLanes) {
        const Lanes q = codes(load(xb + i) * inverse);
        for (int l = 0; l < kLanes; ++l) {
          draft.code[kSub * b + i + l] = static_cast<int8_t>(q[l]);
        }
      }
    }
  }

  // The d that loses least with the draft's scales and codes.
  float refit(const Draft& draft) const noexcept {
    double xq = 0.0;
    double qq = 0.0;
    for (int e = 0; e < kSuperBlock; ++e) {
      const double q = static_cast<double>(draft.scale[e / kSub]) * draft.code[e];
      xq += weights_[e] * q * x_[e];
      qq += weights_[e] * q * q;
    }
    return qq > 0.0 ? static_cast<float>(xq / qq) : draft.d;
  }

  // d such that the largest step gets the lowest scale, all of the range being usable only there.
  float whole_range(const Step* steps) const noexcept {
    float wanted[kSub];
    for (int b = 0; b < kSub; ++b) wanted[b] = steps[b].step;
    return signed_extremum(wanted, kSub) / static_cast<float>(scale_lo_);
  }

  // Of the d around that, the one whose multiples are nearest to the steps.
  float least_rounding(const Step* steps) const noexcept {
    const float whole = whole_range(steps);
    float best = whole, least = -1.0f;
    for (int k = -20; k <= 20; ++k) {
      const float d = whole * (1.0f + 0.005f * static_cast<float>(k));
      if (!std::isfinite(1.0f / d)) break;
      float error = 0.0f;
      for (int b = 0; b < kSub; ++b) {
        const int scale = round_clamped(steps[b].step / d, scale_lo_, scale_hi_);
        const float e = steps[b].step - d * static_cast<float>(scale);
        error += steps[b].growth * e * e;
      }
      if (least >= 0.0f && !(error < least)) continue;
      least = error;
      best = d;
    }
    return best;
  }

  Draft draft_from_steps(const Step* steps, float d, int refits) const noexcept {
    Draft best;
    best.d = to_float(to_finite_f16(d));
    fill(steps, best);
    for (int i = 0; i < refits; ++i) {
      Draft next;
      next.d = to_float(to_finite_f16(refit(best)));
      if (next.d == best.d) break;
      fill(steps, next);
      if (!(next.error < best.error)) break;
      best = next;
    }
    return best;
  }

  const float* x_;
  Weights weights_;
  float lo_, hi_;  // codes
  int scale_lo_, scale_hi_;
};

}  // namespace

SymmetricCodes fit_symmetric(const float* x, const float* weights, SymmetricGrid grid) noexcept {
  const Draft draft = weights == nullptr ? Fit(x, EvenWeights{}, grid).best()
                                         : Fit(x, ElementWeights{weights}, grid).best();
  SymmetricCodes out;
  out.d = to_f16(draft.d);
  for (int b = 0; b < kSub; ++b) out.scale[b] = draft.scale[b];
  for (int e = 0; e < kSuperBlock; ++e) out.code[e] = draft.code[e];
  return out;
}

}  // namespace carat::quant
