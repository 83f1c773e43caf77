#include "kernels/cpu/avx2/table.h"

#include "kernels/cpu/tile/table.h"

#if defined(__x86_64__)

namespace carat::kernels::avx2 {

CARAT_TILE_TABLE

const KernelTable kKernels = {
    .isa = "avx2",
    .quantize_rows = quantize_rows,
    .static_codes = static_codes,
    .static_round = static_round,
    .linear_tiles = kLinearTiles,
    .linear_channel = kLinearChannel,
    .linear_f32 = linear_f32,
    .linear_f16 = linear_f16,
    .linear_bf16 = linear_bf16,
    .rms_norm = rms_norm,
    .add_rms_norm = add_rms_norm,
    .rope = rope,
    .add = add,
    .scale = scale,
    .multiply_add = multiply_add,
    .geglu = geglu,
    .softcap = softcap,
    .attend = attend,
    .join = join,
    .finish = finish,
    .round_rows = round_rows,
    .weigh_codes = weigh_codes,
    .join_weights = join_weights,
    .join_values = join_values,
    .unpack_k4 = unpack_k4,
    .unpack_v4 = unpack_v4,
    .to_f16 = to_f16,
    .from_f16 = from_f16,
    .to_i8 = to_i8,
};

}  // namespace carat::kernels::avx2

#endif
