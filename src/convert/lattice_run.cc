#include "convert/lattice_run.h"

#include <algorithm>
#include <atomic>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "convert/lattice_isa.h"
#include "kernels/cpu/dispatch.h"

namespace carat::convert {
namespace {

// What the processor can do is known by the tables of kernels that it can run.
std::vector<LatticeKernel> find_kernels() {
  std::vector<LatticeKernel> found;
  for (const kernels::KernelTable* table : kernels::supported_kernels()) {
    const std::string_view isa = table->isa;
    const RecoverRun run = isa == "avx512vnni" ? avx512::recover_run()
                           : isa == "avx2"     ? avx2::recover_run()
                                               : nullptr;
    if (run != nullptr) found.push_back({table->isa, run});
  }
  return found;
}

std::atomic<RecoverRun>& chosen() {
  static std::atomic<RecoverRun> run =
      recover_run_within(kernels::supported_kernels().front()->isa);
  return run;
}

}  // namespace

std::span<const LatticeKernel> lattice_kernels() {
  static const std::vector<LatticeKernel> found = find_kernels();
  return found;
}

RecoverRun best_recover_run() { return chosen(); }

RecoverRun recover_run_within(std::string_view isa) {
  const auto tables = kernels::supported_kernels();  // best first
  const auto is_named = [&](const auto* table) { return table->isa == isa; };
  auto table = std::find_if(tables.begin(), tables.end(), is_named);
  CHECK(table != tables.end());
  for (; table != tables.end(); ++table) {
    for (const LatticeKernel& k : lattice_kernels()) {
      if (std::string_view(k.isa) == (*table)->isa) return k.run;
    }
  }
  return nullptr;
}

void use_lattice_isa(std::string_view isa) { chosen() = recover_run_within(isa); }

}  // namespace carat::convert
