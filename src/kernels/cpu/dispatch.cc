#include "kernels/cpu/dispatch.h"

#include <vector>

#include "base/error.h"
#include "base/instruction_sets.h"
#include "kernels/cpu/avx2/table.h"
#include "kernels/cpu/avx512/table.h"
#include "kernels/cpu/avxvnni/table.h"
#include "kernels/cpu/generic/table.h"
#include "kernels/cpu/neon/table.h"

namespace carat::kernels {
namespace {

struct Isa {
  bool (*supported)() noexcept;
  const KernelTable* (*table)();
};

// Best first.
constexpr Isa kIsas[] = {
#if defined(__x86_64__)
    {has_avx512, avx512::table},
    {has_avxvnni, avxvnni::table},
    {has_avx2, [] { return avx2::kTable; }},
#elif defined(__aarch64__)
    {has_neon_dot, neon::table},
#endif
    {[]() noexcept { return true; }, [] { return &generic::kTable; }},
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
