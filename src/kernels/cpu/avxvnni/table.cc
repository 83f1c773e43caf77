#include "kernels/cpu/avxvnni/table.h"

#if defined(__x86_64__)

#include "kernels/cpu/avx2/table.h"
#include "kernels/cpu/avxvnni/code_attention.h"
#include "kernels/cpu/tile/table.h"

namespace carat::kernels::avxvnni {

CARAT_TILE_TABLE

const KernelTable* table() noexcept {
  static const KernelTable kernels = [] {
    KernelTable t = avx2::kKernels;
    t.isa = "avxvnni";
    t.linear_tiles = kLinearTiles;
    t.linear_channel = kLinearChannel;
    t.round_rows = round_rows;
    t.weigh_codes = weigh_codes;
    t.join_weights = join_weights;
    t.join_values = join_values;
    return t;
  }();
  return &kernels;
}

}  // namespace carat::kernels::avxvnni

#endif
