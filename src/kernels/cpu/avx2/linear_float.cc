// Products with float matrices.
#if defined(__x86_64__)

#include "kernels/cpu/avx2/float_types.h"
#include "kernels/cpu/avx2/table.h"
#include "kernels/cpu/tile/float_rows.h"

namespace carat::kernels::avx2 {

void linear_f32(const WeightRows& w, const FloatRows& x, const LinearOutput& y, float*) noexcept {
  tile::linear_float<Avx2Floats, F32Row>(w, x, y);
}
void linear_f16(const WeightRows& w, const FloatRows& x, const LinearOutput& y, float*) noexcept {
  tile::linear_float<Avx2Floats, F16Row>(w, x, y);
}
void linear_bf16(const WeightRows& w, const FloatRows& x, const LinearOutput& y, float*) noexcept {
  tile::linear_float<Avx2Floats, BF16Row>(w, x, y);
}

}  // namespace carat::kernels::avx2

#endif
