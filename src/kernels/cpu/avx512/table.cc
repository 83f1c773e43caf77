#include "kernels/cpu/avx512/table.h"

#if defined(__x86_64__)

#include "kernels/cpu/avx2/table.h"
#include "kernels/cpu/tile/table.h"

namespace carat::kernels::avx512 {

CARAT_TILE_TABLE

const KernelTable* table() noexcept {
  static const KernelTable kernels = [] {
    KernelTable t = avx2::kKernels;
    t.isa = "avx512vnni";
    t.linear_tiles = kLinearTiles;
    t.linear_channel = kLinearChannel;
    return t;
  }();
  return &kernels;
}

}  // namespace carat::kernels::avx512

#endif
