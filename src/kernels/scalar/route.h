// The router of a mixture of experts.
#pragma once

#include <cstdint>

#include "kernels/scalar/math.h"

namespace carat::kernels::scalar {

// p = softmax(logits) over n experts; ids = the top_k largest, best first, lower index first on
// ties; weights[r] = p[ids[r]] / (sum of the chosen p) * expert_scale[ids[r]].
// p [n] is scratch and keeps the softmax. REQUIRES: 1 <= top_k <= n.
template <class T>
void route_row(const T* logits, int64_t n, const T* expert_scale, int64_t top_k, T* p, T* weights,
               int32_t* ids) noexcept {
  T max = logits[0];
  for (int64_t e = 1; e < n; ++e) max = logits[e] > max ? logits[e] : max;
  T lane[kLanes] = {};
  for (int64_t e = 0; e < n; ++e) {
    p[e] = exp_of(logits[e] - max);
    lane[e % kLanes] += p[e];
  }
  const T sum = add_lanes(lane);
  for (int64_t e = 0; e < n; ++e) p[e] = p[e] / sum;

  T chosen = T(0);
  for (int64_t r = 0; r < top_k; ++r) {
    int64_t best = -1;
    for (int64_t e = 0; e < n; ++e) {
      bool taken = false;
      for (int64_t s = 0; s < r; ++s) taken = taken || ids[s] == e;
      if (!taken && (best < 0 || p[e] > p[best])) best = e;
    }
    ids[r] = static_cast<int32_t>(best);
    chosen += p[best];
  }
  for (int64_t r = 0; r < top_k; ++r) weights[r] = p[ids[r]] / chosen * expert_scale[ids[r]];
}

}  // namespace carat::kernels::scalar
