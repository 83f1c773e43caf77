// The kernels of AVX-512 with VNNI: strong functions of leaf files compiled with its flags, as in
// kernels/cpu/avx2/table.h. What it has no kernel for is AVX2's.
#pragma once

#include "kernels/cpu/table.h"

namespace carat::kernels::avx512 {

#if defined(__x86_64__)
// REQUIRES: the processor has AVX-512 with VNNI and all that the AVX2 table needs.
const KernelTable* table() noexcept;

void linear_f32(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                float* scratch) noexcept;
void linear_f16(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                float* scratch) noexcept;
void linear_bf16(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                 float* scratch) noexcept;
#endif

}  // namespace carat::kernels::avx512
