// Row and element kernels that cost more than reading memory: sixteen at a time, each element by
// the operations of kernels/scalar.
#if defined(__x86_64__)

#include "kernels/cpu/avx512/rows.h"

#include "kernels/cpu/avx512/floats.h"

namespace carat::kernels::avx512 {
namespace {

// f(load, store) over 16 elements at a time: load(p) reads p[i..], store(p, v) writes it.
template <class F>
CARAT_INLINE void for_each_16(int64_t n, F f) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    f([i](const float* p) { return _mm512_loadu_ps(p + i); },
      [i](float* p, __m512 v) { _mm512_storeu_ps(p + i, v); });
  }
  if (i < n) {
    const __mmask16 mask = first_lanes(n - i);
    f([i, mask](const float* p) { return _mm512_maskz_loadu_ps(mask, p + i); },
      [i, mask](float* p, __m512 v) { _mm512_mask_storeu_ps(p + i, mask, v); });
  }
}

// scalar::tanh_of, operation by operation.
CARAT_INLINE __m512 tanh_of(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 a = _mm512_abs_ps(x);
  const __m512 z = _mm512_mul_ps(x, x);
  __m512 p = _mm512_set1_ps(scalar::kTanhPoly[0]);
  for (int i = 1; i < 5; ++i) p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(scalar::kTanhPoly[i]));
  const __m512 small = _mm512_fmadd_ps(_mm512_mul_ps(p, z), x, x);
  const __m512 e = _mm512_add_ps(exp_of(_mm512_add_ps(a, a)), one);
  __m512 large = _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.0f), e));
  const __m512 sign = _mm512_set1_ps(-0.0f);
  large = _mm512_or_ps(_mm512_andnot_ps(sign, large), _mm512_and_ps(sign, x));
  const __mmask16 is_small = _mm512_cmp_ps_mask(a, _mm512_set1_ps(scalar::kTanhSmall), _CMP_LT_OQ);
  return _mm512_mask_blend_ps(is_small, large, small);
}

// The canonical sum of squares: eight lanes.
CARAT_INLINE float rms_factor(const float* x, int64_t n, float eps) {
  __m256 acc = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    acc = _mm256_fmadd_ps(v, v, acc);
  }
  if (i < n) {
    const __m256 v = _mm256_maskz_loadu_ps(static_cast<__mmask8>(first_lanes(n - i)), x + i);
    acc = _mm256_fmadd_ps(v, v, acc);
  }
  const float mean = add_lanes(acc) / static_cast<float>(n) + eps;
  return 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean)));
}

}  // namespace

void rms_norm(const float* x, const float* w, int64_t n_groups, int64_t group, float eps,
              float* y) noexcept {
  for (int64_t g = 0; g < n_groups; ++g, x += group, y += group) {
    const __m512 r = _mm512_set1_ps(rms_factor(x, group, eps));
    if (w) {
      for_each_16(group, [&](auto load, auto store) {
        store(y, _mm512_mul_ps(_mm512_mul_ps(load(x), r), load(w)));
      });
    } else {
      for_each_16(group, [&](auto load, auto store) { store(y, _mm512_mul_ps(load(x), r)); });
    }
  }
}

void add_rms_norm(const float* x, const float* y, const float* w, int64_t n, int64_t cols,
                  float eps, float* out) noexcept {
  for (int64_t t = 0; t < n; ++t, x += cols, y += cols, out += cols) {
    const __m512 r = _mm512_set1_ps(rms_factor(y, cols, eps));
    for_each_16(cols, [&](auto load, auto store) {
      const __m512 normed = _mm512_mul_ps(_mm512_mul_ps(load(y), r), load(w));
      store(out, _mm512_add_ps(load(x), normed));
    });
  }
}

void geglu(const float* gate, const float* up, int64_t n, float* y) noexcept {
  const __m512 cubic = _mm512_set1_ps(static_cast<float>(scalar::kGeluCubic));
  const __m512 outer = _mm512_set1_ps(static_cast<float>(-2.0 * scalar::kSqrt2OverPi));
  const __m512 one = _mm512_set1_ps(1.0f);
  for_each_16(n, [&](auto load, auto store) {
    const __m512 x = load(gate);
    const __m512 c = _mm512_mul_ps(cubic, _mm512_mul_ps(x, x));
    const __m512 u = _mm512_mul_ps(outer, _mm512_fmadd_ps(c, x, x));
    const __m512 gelu = _mm512_div_ps(x, _mm512_add_ps(one, exp_of(u)));
    store(y, _mm512_mul_ps(gelu, load(up)));
  });
}

void softcap(const float* x, int64_t n, float cap, float* y) noexcept {
  const __m512 c = _mm512_set1_ps(cap);
  for_each_16(n, [&](auto load, auto store) {
    store(y, _mm512_mul_ps(c, tanh_of(_mm512_div_ps(load(x), c))));
  });
}

}  // namespace carat::kernels::avx512

#endif
