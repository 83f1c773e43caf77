// The figures that `llama-perplexity --kl-divergence` prints, by its own definitions, and printed
// as it prints them: with its reference file (audit/kld_file.h) and the same logits of the
// candidate every digit is the same. They are for comparing with published figures; carat's own are
// those of audit/compare.h and audit/statistics.h. Definitions that differ from carat's:
//
//  * The divergence at a position is the sum over tokens with log p > -16 of p (log p - log q), p
//    not normalised after its rounding to 16 bits: it can be negative.
//  * Errors are standard errors of the mean as if positions were independent, and 0 up to 10 of
//  them.
//  * Percentiles interpolate in float between values rounded to float.
//  * Of two equally likely tokens the lower id is the top, on both sides; ties arise from rounding.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "audit/kld_file.h"

namespace carat::audit {

// What one position adds.
struct LlamaPosition {
  double kld = 0;
  float nll = 0;       // -log q(next)
  float nll_base = 0;  // -log p(next)
  float p_diff = 0;    // q(next) - p(next)
  bool same_top = false;
};

// REQUIRES: as many logits as the row has codes; next is a token. Not-a-number if a logit is.
[[nodiscard]] LlamaPosition llama_position(const KldRow& base, std::span<const float> logits,
                                           int32_t next);

struct Estimate {
  double value = 0;
  double error = 0;  // the tool's "±"
};

class LlamaStatistics {
 public:
  void add(const LlamaPosition& position);
  int64_t count() const { return static_cast<int64_t>(kld_.size()); }

  // REQUIRES of all below: count() > 0.
  Estimate perplexity() const;
  Estimate base_perplexity() const;
  double correlation() const;  // of the two -log p, 0 to 1
  Estimate log_ratio() const;  // ln(PPL(Q) / PPL(base))
  Estimate ratio() const;
  Estimate difference() const;  // PPL(Q) - PPL(base)
  Estimate mean_kld() const;
  Estimate mean_p_diff() const;
  Estimate rms_p_diff() const;
  Estimate same_top() const;
  // `fraction` in [0, 1]; 0 is the minimum, 1 the maximum.
  float kld_percentile(float fraction) const;
  float p_diff_percentile(float fraction) const;
  float kld_median() const;
  float p_diff_median() const;

  // The line that the tool prints after chunk `chunk` (from 1), with its newline.
  std::string chunk_line(int64_t chunk) const;
  // Everything after the last of those lines, from "====== Perplexity statistics ======" on. The
  // tool prints nothing for fewer than 100 positions, nor does this: "".
  std::string text() const;

 private:
  // Sums over positions, in double, of what the tool sums.
  struct Sums {
    double nll = 0, nll2 = 0, base = 0, base2 = 0, nll_base = 0;
    double kld = 0, kld2 = 0;
    double p_diff = 0, p_diff2 = 0, p_diff4 = 0;
    int64_t same_top = 0;
  };
  Estimate mean(double sum, double sum_of_squares) const;
  double covariance() const;
  Estimate log_perplexity() const;
  Estimate log_base_perplexity() const;

  Sums sums_;
  std::vector<float> kld_, p_diff_;  // in the order added
};

}  // namespace carat::audit
