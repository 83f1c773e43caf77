// Products with float matrices: two rows to a register, each with its eight lanes.
#if defined(__x86_64__)

#include "kernels/cpu/avx2/float_types.h"
#include "kernels/cpu/avx512/table.h"
#include "kernels/cpu/tile/float_rows.h"

namespace carat::kernels::avx512 {
namespace {

struct Avx512Floats : Avx2Floats {
  using Vec = __m512;
  static constexpr int64_t kRows = 2;
  static constexpr int kVectors = 4, kTokens = 6, kSeveralTokens = 3;

  static CARAT_INLINE Vec zero() { return _mm512_setzero_ps(); }
  static CARAT_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static CARAT_INLINE void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static CARAT_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static CARAT_INLINE Vec eight(const float* p) { return _mm512_broadcast_f32x8(load_half(p)); }
  static CARAT_INLINE Vec eight(const float* p, int64_t n) {
    return _mm512_broadcast_f32x8(load_half(p, n));
  }
};

}  // namespace

void linear_f32(const WeightRows& w, const FloatRows& x, const LinearOutput& y, float*) noexcept {
  tile::linear_float<Avx512Floats, F32Row>(w, x, y);
}
void linear_f16(const WeightRows& w, const FloatRows& x, const LinearOutput& y, float*) noexcept {
  tile::linear_float<Avx512Floats, F16Row>(w, x, y);
}
void linear_bf16(const WeightRows& w, const FloatRows& x, const LinearOutput& y, float*) noexcept {
  tile::linear_float<Avx512Floats, BF16Row>(w, x, y);
}

}  // namespace carat::kernels::avx512

#endif
