#include "kernels/cpu/avx512/table.h"

#if defined(__x86_64__)

#include "kernels/cpu/avx2/table.h"
#include "kernels/cpu/avx512/code_attention.h"
#include "kernels/cpu/avx512/rows.h"
#include "kernels/cpu/tile/table.h"

namespace carat::kernels::avx512 {

CARAT_TILE_TABLE

const KernelTable* table() noexcept {
  static const KernelTable kernels = [] {
    KernelTable t = avx2::kKernels;
    t.isa = "avx512vnni";
    t.linear_tiles = kLinearTiles;
    t.linear_channel = kLinearChannel;
    t.linear_f32 = linear_f32;
    t.linear_f16 = linear_f16;
    t.linear_bf16 = linear_bf16;
    t.rms_norm = rms_norm;
    t.add_rms_norm = add_rms_norm;
    t.geglu = geglu;
    t.softcap = softcap;
    t.round_rows = round_rows;
    t.weigh_codes = weigh_codes;
    t.join_weights = join_weights;
    t.join_values = join_values;
    return t;
  }();
  return &kernels;
}

}  // namespace carat::kernels::avx512

#endif
