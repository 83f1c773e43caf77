// The attention kernels of the AVX-VNNI table over int8 pages (table.h).
#pragma once

#include "kernels/cpu/table.h"

namespace carat::kernels::avxvnni {

void round_rows(const float* rows, int64_t n, int64_t cols, const CodeRows& out) noexcept;
void weigh_codes(const CodeRows& q, int64_t n_q, const CodePage& page, const Places* seen,
                 int64_t head_dim, const uint8_t* next, const CodeRows& p, float* max,
                 float* sum) noexcept;
void join_weights(float* total_max, float* total_sum, const float* max, const float* sum, int64_t n,
                  float* keep, float* take) noexcept;
void join_values(const CodeRows& p, int64_t n_q, const uint8_t* v, int64_t n_dims,
                 const uint8_t* next, const float* keep, const float* take, float* totals,
                 int64_t stride) noexcept;

}  // namespace carat::kernels::avxvnni
