#include "audit/compare.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace carat::audit {
namespace {

// log(sum(exp(row))), shifted by the maximum.
double log_sum_exp(std::span<const float> row, double maximum) {
  double sum = 0;
  for (const float x : row) sum += std::exp(static_cast<double>(x) - maximum);
  return maximum + std::log(sum);
}

}  // namespace

int32_t argmax(std::span<const float> row) {
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

Position compare_position(std::span<const float> reference, std::span<const float> candidate,
                          int32_t next) {
  CHECK(!reference.empty() && reference.size() == candidate.size());
  CHECK(next >= 0 && static_cast<size_t>(next) < reference.size());
  const int32_t reference_top = argmax(reference);
  const int32_t candidate_top = argmax(candidate);
  const double reference_log_sum =
      log_sum_exp(reference, reference[static_cast<size_t>(reference_top)]);
  const double candidate_log_sum =
      log_sum_exp(candidate, candidate[static_cast<size_t>(candidate_top)]);
  double kld = 0;
  for (size_t v = 0; v < reference.size(); ++v) {
    const double log_p = static_cast<double>(reference[v]) - reference_log_sum;
    const double log_q = static_cast<double>(candidate[v]) - candidate_log_sum;
    const double p = std::exp(log_p);
    if (p != 0) kld += p * (log_p - log_q);
  }
  const auto n = static_cast<size_t>(next);
  return {.kld = kld < 0 ? 0 : kld,  // rounding may leave -1e-17; not-a-number passes through
          .reference_nll = reference_log_sum - static_cast<double>(reference[n]),
          .candidate_nll = candidate_log_sum - static_cast<double>(candidate[n]),
          .same_top = reference_top == candidate_top};
}

}  // namespace carat::audit
