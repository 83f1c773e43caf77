#include "kernels/cpu/neon/table.h"

#if defined(__aarch64__)

#include "kernels/cpu/generic/table.h"
#include "kernels/cpu/tile/table.h"

namespace carat::kernels::neon {

CARAT_TILE_TABLE

const KernelTable* table() noexcept {
  static const KernelTable kernels = [] {
    KernelTable t = generic::kTable;
    t.isa = "neon";
    t.linear_tiles = kLinearTiles;
    t.linear_channel = kLinearChannel;
    t.quantize_rows = quantize_rows;
    t.static_codes = static_codes;
    t.static_round = static_round;
    t.linear_f32 = linear_f32;
    t.linear_f16 = linear_f16;
    t.linear_bf16 = linear_bf16;
    t.rms_norm = rms_norm;
    t.add_rms_norm = add_rms_norm;
    t.rope = rope;
    t.add = add;
    t.scale = scale;
    t.multiply_add = multiply_add;
    t.geglu = geglu;
    t.softcap = softcap;
    t.finish = finish;
    t.round_rows = round_rows;
    t.weigh_codes = weigh_codes;
    t.join_weights = join_weights;
    t.join_values = join_values;
    t.to_f16 = to_f16;
    t.from_f16 = from_f16;
    t.to_i8 = to_i8;
    return t;
  }();
  return &kernels;
}

}  // namespace carat::kernels::neon

#endif
