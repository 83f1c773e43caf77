// The kernels of AVX-512 with VNNI: strong functions of leaf files compiled with its flags, as in
// kernels/cpu/avx2/table.h. What it has no kernel for is AVX2's.
#pragma once

#include "kernels/cpu/table.h"

namespace carat::kernels::avx512 {

#if defined(__x86_64__)
// REQUIRES: the processor has AVX-512 with VNNI and all that the AVX2 table needs.
const KernelTable* table() noexcept;
#endif

}  // namespace carat::kernels::avx512
