// Row and element kernels.
#if defined(__aarch64__)

#include "kernels/cpu/neon/simd.h"
#include "kernels/cpu/neon/table.h"

namespace carat::kernels::neon {
namespace {

CARAT_INLINE float rms_factor(const float* x, int64_t n, float eps) {
  return 1.0f / __builtin_sqrtf(dot(x, x, n) / static_cast<float>(n) + eps);
}

}  // namespace

void rms_norm(const float* x, const float* w, int64_t n_groups, int64_t group, float eps,
              float* y) noexcept {
  for (int64_t g = 0; g < n_groups; ++g, x += group, y += group) {
    const Eight r = splat(rms_factor(x, group, eps));
    if (w) {
      for_each_8(group, [&](auto get, auto put) { put(y, mul(mul(get(x), r), get(w))); });
    } else {
      for_each_8(group, [&](auto get, auto put) { put(y, mul(get(x), r)); });
    }
  }
}

void add_rms_norm(const float* x, const float* y, const float* w, int64_t n, int64_t cols,
                  float eps, float* out) noexcept {
  for (int64_t t = 0; t < n; ++t, x += cols, y += cols, out += cols) {
    const Eight r = splat(rms_factor(y, cols, eps));
    for_each_8(cols,
               [&](auto get, auto put) { put(out, add(get(x), mul(mul(get(y), r), get(w)))); });
  }
}

void rope(const float* x, const float* cos, const float* sin, int64_t n_pairs, int64_t n_heads,
          int64_t head_dim, float* y) noexcept {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < n_heads; ++h, x += head_dim, y += head_dim) {
    for_each_8(n_pairs, [&](auto get, auto put) {
      const Eight a = get(x), b = get(x + half), c = get(cos), s = get(sin);
      put(y, fma(a, c, neg(mul(b, s))));
      put(y + half, fma(b, c, mul(a, s)));
    });
    if (x == y) continue;
    for_each_8(half - n_pairs, [&](auto get, auto put) {
      put(y + n_pairs, get(x + n_pairs));
      put(y + half + n_pairs, get(x + half + n_pairs));
    });
  }
}

void add(const float* a, const float* b, int64_t n, float* y) noexcept {
  for_each_8(n, [&](auto get, auto put) { put(y, add(get(a), get(b))); });
}

void scale(const float* x, int64_t n, float factor, float* y) noexcept {
  const Eight f = splat(factor);
  for_each_8(n, [&](auto get, auto put) { put(y, mul(get(x), f)); });
}

void multiply_add(const float* x, int64_t n, float factor, float* y) noexcept {
  const Eight f = splat(factor);
  for_each_8(n, [&](auto get, auto put) { put(y, fma(f, get(x), get(y))); });
}

void geglu(const float* gate, const float* up, int64_t n, float* y) noexcept {
  const Eight cubic = splat(static_cast<float>(scalar::kGeluCubic));
  const Eight outer = splat(static_cast<float>(-2.0 * scalar::kSqrt2OverPi));
  const Eight one = splat(1.0f);
  for_each_8(n, [&](auto get, auto put) {
    const Eight x = get(gate);
    const Eight u = mul(outer, fma(mul(cubic, mul(x, x)), x, x));
    put(y, mul(div(x, add(one, exp_of(u))), get(up)));
  });
}

void softcap(const float* x, int64_t n, float cap, float* y) noexcept {
  const Eight c = splat(cap);
  for_each_8(n, [&](auto get, auto put) { put(y, mul(c, tanh_of(div(get(x), c)))); });
}

void finish(float* vectors, const float* sum, int64_t n_q, int64_t head_dim) noexcept {
  for (int64_t i = 0; i < n_q; ++i, vectors += head_dim) {
    const Eight s = splat(sum[i]);
    for_each_8(head_dim, [&](auto get, auto put) { put(vectors, div(get(vectors), s)); });
  }
}

}  // namespace carat::kernels::neon

#endif
