#include "base/instruction_sets.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace carat {

#if defined(__x86_64__)

namespace {

// clang 14 does not know the name of F16C: bit 29 of ecx of leaf 1.
bool has_f16c() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

}  // namespace

bool has_avx2() noexcept {
  return has_f16c() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
}

bool has_avx512() noexcept {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

// Not every compiler knows its name: bit 4 of eax of leaf 7, sub-leaf 1.
bool has_avxvnni() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

#else

bool has_avx2() noexcept { return false; }
bool has_avx512() noexcept { return false; }
bool has_avxvnni() noexcept { return false; }

#endif

#if !defined(__aarch64__)
bool has_neon_dot() noexcept { return false; }
#elif defined(__linux__)
bool has_neon_dot() noexcept { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#else
// 64-bit processors of other systems than Linux have them.
bool has_neon_dot() noexcept { return true; }
#endif

}  // namespace carat
