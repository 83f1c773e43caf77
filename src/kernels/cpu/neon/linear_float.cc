// Products with float matrices.
#if defined(__aarch64__)

#include "kernels/cpu/neon/float_types.h"
#include "kernels/cpu/neon/table.h"
#include "kernels/cpu/tile/float_rows.h"

namespace carat::kernels::neon {

void linear_f32(const WeightRows& w, const FloatRows& x, const LinearOutput& y, float*) noexcept {
  tile::linear_float<NeonFloats, F32Row>(w, x, y);
}
void linear_f16(const WeightRows& w, const FloatRows& x, const LinearOutput& y, float*) noexcept {
  tile::linear_float<NeonFloats, F16Row>(w, x, y);
}
void linear_bf16(const WeightRows& w, const FloatRows& x, const LinearOutput& y, float*) noexcept {
  tile::linear_float<NeonFloats, BF16Row>(w, x, y);
}

}  // namespace carat::kernels::neon

#endif
