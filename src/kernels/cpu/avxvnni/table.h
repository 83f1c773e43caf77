// The kernels of AVX-VNNI: strong functions of leaf files compiled with its flags, as in
// kernels/cpu/avx2/table.h. What it has no kernel for is AVX2's.
#pragma once

#include "kernels/cpu/table.h"

namespace carat::kernels::avxvnni {

#if defined(__x86_64__)
// REQUIRES: the processor has AVX-VNNI and all that the AVX2 table needs.
const KernelTable* table() noexcept;
#endif

}  // namespace carat::kernels::avxvnni
