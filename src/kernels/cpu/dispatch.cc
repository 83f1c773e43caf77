#include "kernels/cpu/dispatch.h"

#include <vector>

#include "base/error.h"
#include "kernels/cpu/avx2/table.h"
#include "kernels/cpu/avx512/table.h"
#include "kernels/cpu/avxvnni/table.h"
#include "kernels/cpu/generic/table.h"
#include "kernels/cpu/neon/table.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace carat::kernels {
namespace {

struct Isa {
  bool (*supported)();
  const KernelTable* (*table)();
};

#if defined(__x86_64__)
// clang 14 does not know the name of F16C: bit 29 of ecx of leaf 1.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}
bool has_avx2() {
  return has_f16c() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
}
bool has_avx512vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}
// Not every compiler knows its name: bit 4 of eax of leaf 7, sub-leaf 1.
bool has_avxvnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#elif defined(__aarch64__)
// The dot product instructions; 64-bit processors of other systems than Linux have them.
bool has_neon_dot() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return true;
#endif
}
#endif

// Best first.
constexpr Isa kIsas[] = {
#if defined(__x86_64__)
    {has_avx512vnni, avx512::table},
    {has_avxvnni, avxvnni::table},
    {has_avx2, [] { return avx2::kTable; }},
#elif defined(__aarch64__)
    {has_neon_dot, neon::table},
#endif
    {[] { return true; }, [] { return &generic::kTable; }},
};

std::vector<const KernelTable*> find_supported() {
  std::vector<const KernelTable*> found;
  for (const Isa& isa : kIsas) {
    if (isa.supported()) found.push_back(isa.table());
  }
  return found;
}

}  // namespace

const KernelTable& generic_kernels() { return generic::kTable; }

std::span<const KernelTable* const> supported_kernels() {
  static const std::vector<const KernelTable*> found = find_supported();
  return found;
}

const KernelTable& choose_kernels(const std::optional<std::string>& forced) {
  if (!forced) return *supported_kernels().front();
  std::string names;
  for (const KernelTable* table : supported_kernels()) {
    if (*forced == table->isa) return *table;
    names += (names.empty() ? "" : ", ") + std::string(table->isa);
  }
  throw Error({"this instruction set cannot be used here", {}, "CARAT_ISA", names, *forced, {}});
}

}  // namespace carat::kernels
