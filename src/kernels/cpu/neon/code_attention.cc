#if defined(__aarch64__)

#include "kernels/cpu/simd/code_attention.h"

#include "kernels/cpu/neon/code_isa.h"
#include "kernels/cpu/neon/table.h"

namespace carat::kernels::neon {

void round_rows(const float* rows, int64_t n, int64_t cols, const CodeRows& out) noexcept {
  simd::round_all<CodeIsa>(rows, n, cols, out);
}

void weigh_codes(const CodeRows& q, int64_t n_q, const CodePage& page, const Places* seen,
                 int64_t head_dim, const uint8_t* next, const CodeRows& p, float* max,
                 float* sum) noexcept {
  simd::weigh_all<CodeIsa>(q, n_q, page, seen, head_dim, next, p, max, sum);
}

void join_weights(float* total_max, float* total_sum, const float* max, const float* sum, int64_t n,
                  float* keep, float* take) noexcept {
  simd::join_all_weights<CodeIsa>(total_max, total_sum, max, sum, n, keep, take);
}

void join_values(const CodeRows& p, int64_t n_q, const uint8_t* v, int64_t n_dims,
                 const uint8_t* next, const float* keep, const float* take, float* totals,
                 int64_t stride) noexcept {
  simd::join_all<CodeIsa>(p, n_q, v, n_dims, next, keep, take, totals, stride);
}

}  // namespace carat::kernels::neon

#endif
