#include "kernels/cpu/dispatch.h"

#include <vector>

#include "base/error.h"
#include "kernels/cpu/avx2/table.h"
#include "kernels/cpu/generic/table.h"

namespace carat::kernels {
namespace {

struct Isa {
  const KernelTable* table;  // null where the compiler cannot build it
  bool (*supported)();
};

bool always() { return true; }

// F16C is not asked for: clang 14 does not know its name here, and every processor with AVX2 has it.
bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
#else
  return false;
#endif
}

// Best first.
constexpr Isa kIsas[] = {
    {avx2::kTable, has_avx2},

    {&generic::kTable, always},
};

std::vector<const KernelTable*> find_supported() {
  std::vector<const KernelTable*> found;
  for (const Isa& isa : kIsas) {
    if (isa.table && isa.supported()) found.push_back(isa.table);
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
