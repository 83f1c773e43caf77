// The AVX2 + FMA + F16C kernels: namespace avx2 holds one strong function per kernel, each from a
// leaf file compiled with those flags; nothing in these files may define a weak symbol, which the
// linker could hand to portable code.
#pragma once

#include "kernels/cpu/table.h"

namespace carat::kernels::avx2 {

// Null where the compiler does not target x86-64.
#if defined(__x86_64__)
extern const KernelTable kKernels;
inline constexpr const KernelTable* kTable = &kKernels;
#else
inline constexpr const KernelTable* kTable = nullptr;
#endif

}  // namespace carat::kernels::avx2
