#include "convert/lattice_run.h"

#include <string_view>
#include <vector>

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

}  // namespace

std::span<const LatticeKernel> lattice_kernels() {
  static const std::vector<LatticeKernel> found = find_kernels();
  return found;
}

RecoverRun best_recover_run() {
  return lattice_kernels().empty() ? nullptr : lattice_kernels().front().run;
}

}  // namespace carat::convert
