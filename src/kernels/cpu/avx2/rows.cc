// Row and element kernels.
#if defined(__x86_64__)

#include "kernels/cpu/avx2/simd.h"
#include "kernels/cpu/avx2/table.h"

namespace carat::kernels::avx2 {
namespace {

CARAT_INLINE float rms_factor(const float* x, int64_t n, float eps) {
  const float mean = dot(x, x, n) / static_cast<float>(n) + eps;
  return 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean)));
}

}  // namespace

void rms_norm(const float* x, const float* w, int64_t n_groups, int64_t group, float eps,
              float* y) noexcept {
  for (int64_t g = 0; g < n_groups; ++g, x += group, y += group) {
    const __m256 r = _mm256_set1_ps(rms_factor(x, group, eps));
    if (w) {
      for_each_8(group, [&](auto load, auto store) {
        store(y, _mm256_mul_ps(_mm256_mul_ps(load(x), r), load(w)));
      });
    } else {
      for_each_8(group, [&](auto load, auto store) { store(y, _mm256_mul_ps(load(x), r)); });
    }
  }
}

void add_rms_norm(const float* x, const float* y, const float* w, int64_t n, int64_t cols,
                  float eps, float* out) noexcept {
  for (int64_t t = 0; t < n; ++t, x += cols, y += cols, out += cols) {
    const __m256 r = _mm256_set1_ps(rms_factor(y, cols, eps));
    for_each_8(cols, [&](auto load, auto store) {
      const __m256 normed = _mm256_mul_ps(_mm256_mul_ps(load(y), r), load(w));
      store(out, _mm256_add_ps(load(x), normed));
    });
  }
}

void rope(const float* x, const float* cos, const float* sin, int64_t n_pairs, int64_t n_heads,
          int64_t head_dim, float* y) noexcept {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < n_heads; ++h, x += head_dim, y += head_dim) {
    for_each_8(n_pairs, [&](auto load, auto store) {
      const __m256 a = load(x), b = load(x + half), c = load(cos), s = load(sin);
      store(y, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
      store(y + half, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    });
    if (x == y) continue;
    for_each_8(half - n_pairs, [&](auto load, auto store) {
      store(y + n_pairs, load(x + n_pairs));
      store(y + half + n_pairs, load(x + half + n_pairs));
    });
  }
}

void add(const float* a, const float* b, int64_t n, float* y) noexcept {
  for_each_8(n, [&](auto load, auto store) { store(y, _mm256_add_ps(load(a), load(b))); });
}

void scale(const float* x, int64_t n, float factor, float* y) noexcept {
  const __m256 f = _mm256_set1_ps(factor);
  for_each_8(n, [&](auto load, auto store) { store(y, _mm256_mul_ps(load(x), f)); });
}

void multiply_add(const float* x, int64_t n, float factor, float* y) noexcept {
  const __m256 f = _mm256_set1_ps(factor);
  for_each_8(n, [&](auto load, auto store) { store(y, _mm256_fmadd_ps(f, load(x), load(y))); });
}

void geglu(const float* gate, const float* up, int64_t n, float* y) noexcept {
  const __m256 cubic = _mm256_set1_ps(static_cast<float>(scalar::kGeluCubic));
  const __m256 outer = _mm256_set1_ps(static_cast<float>(-2.0 * scalar::kSqrt2OverPi));
  const __m256 one = _mm256_set1_ps(1.0f);
  for_each_8(n, [&](auto load, auto store) {
    const __m256 x = load(gate);
    const __m256 c = _mm256_mul_ps(cubic, _mm256_mul_ps(x, x));
    const __m256 u = _mm256_mul_ps(outer, _mm256_fmadd_ps(c, x, x));
    const __m256 gelu = _mm256_div_ps(x, _mm256_add_ps(one, exp_of(u)));
    store(y, _mm256_mul_ps(gelu, load(up)));
  });
}

void softcap(const float* x, int64_t n, float cap, float* y) noexcept {
  const __m256 c = _mm256_set1_ps(cap);
  for_each_8(n, [&](auto load, auto store) {
    store(y, _mm256_mul_ps(c, tanh_of(_mm256_div_ps(load(x), c))));
  });
}

}  // namespace carat::kernels::avx2

#endif
