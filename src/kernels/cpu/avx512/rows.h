// The row and element kernels of the AVX-512 table (table.h).
#pragma once

#include <cstdint>

namespace carat::kernels::avx512 {

void rms_norm(const float* x, const float* w, int64_t n_groups, int64_t group, float eps,
              float* y) noexcept;
void add_rms_norm(const float* x, const float* y, const float* w, int64_t n, int64_t cols,
                  float eps, float* out) noexcept;
void geglu(const float* gate, const float* up, int64_t n, float* y) noexcept;
void softcap(const float* x, int64_t n, float cap, float* y) noexcept;

}  // namespace carat::kernels::avx512
