// Source of the tables in loops.h; included by one file per ISA. Everything has internal linkage
// and calls only builtins, so that no function compiled for a later processor can be linked into
// another file's code.
#include <cstdint>

#include "train/loops.h"

namespace carat::train {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
constexpr int64_t kWidth = kVectorBytes / static_cast<int64_t>(sizeof(T));

template <class T>
inline Vector<T> load(const T* p) {
  Vector<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
inline T sum_lanes(Vector<T> v) {
  T sum = 0;
  for (int64_t i = 0; i < kWidth<T>; ++i) sum += v[i];
  return sum;
}

// e^x; for float the argument is held to [-87, 88], relative error below 2e-7.
inline double exp_of(double x) { return __builtin_exp(x); }
inline float exp_of(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 0x1.715476p+0f + 0x1.8p+23f;
  const float n = shifted - 0x1.8p+23f;
  float r = x - n * 0x1.62e4p-1f;
  r = r - n * 0x1.7f7d1cp-20f;
  float p = 0.00139263759958f;
  p = p * r + 0.00836333308218f;
  p = p * r + 0.0416665534587f;
  p = p * r + 0.166665760623f;
  p = p * r + 0.5f;
  p = p * (r * r) + r + 1.0f;
  int32_t bits;
  __builtin_memcpy(&bits, &shifted, 4);
  bits = (bits - 0x4b400000 + 127) << 23;
  float two_n;
  __builtin_memcpy(&two_n, &bits, 4);
  return p * two_n;
}

inline double tanh_of(double x) { return __builtin_tanh(x); }
inline float tanh_of(float x) {
  const float a = __builtin_fabsf(x);
  const float z = x * x;
  float p = -0.00609464131536f;
  p = p * z + 0.0209957538903f;
  p = p * z - 0.0538506091084f;
  p = p * z + 0.133327677603f;
  p = p * z - 0.333333289245f;
  const float small = p * z * x + x;
  const float large = __builtin_copysignf(1.0f - 2.0f / (exp_of(a + a) + 1.0f), x);
  return a < 0.625f ? small : large;
}

inline double sqrt_of(double x) { return __builtin_sqrt(x); }
inline float sqrt_of(float x) { return __builtin_sqrtf(x); }
inline double log_of(double x) { return __builtin_log(x); }
inline float log_of(float x) { return __builtin_logf(x); }

template <class T>
void add(int64_t n, const T* __restrict a, const T* __restrict b, T* __restrict y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

template <class T>
void scale(int64_t n, T a, const T* __restrict x, T* __restrict y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = a * x[i];
}

template <class T>
void axpy(int64_t n, T a, const T* __restrict x, T* __restrict y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

template <class T>
T dot(int64_t n, const T* a, const T* b) noexcept {
  Vector<T> s0 = {}, s1 = {};
  int64_t i = 0;
  for (; i + 2 * kWidth<T> <= n; i += 2 * kWidth<T>) {
    s0 += load(a + i) * load(b + i);
    s1 += load(a + i + kWidth<T>) * load(b + i + kWidth<T>);
  }
  T sum = sum_lanes<T>(s0 + s1);
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

template <class T>
T max_of(int64_t n, const T* x) noexcept {
  T max = x[0];
  int64_t i = 0;
  if (n >= kWidth<T>) {
    Vector<T> m = load(x);
    for (i = kWidth<T>; i + kWidth<T> <= n; i += kWidth<T>) {
      const Vector<T> v = load(x + i);
      m = v > m ? v : m;
    }
    for (int64_t l = 0; l < kWidth<T>; ++l) max = m[l] > max ? m[l] : max;
  }
  for (; i < n; ++i) max = x[i] > max ? x[i] : max;
  return max;
}

template <class T>
T sum_of(int64_t n, const T* x) noexcept {
  Vector<T> s = {};
  int64_t i = 0;
  for (; i + kWidth<T> <= n; i += kWidth<T>) s += load(x + i);
  T sum = sum_lanes<T>(s);
  for (; i < n; ++i) sum += x[i];
  return sum;
}

constexpr double kSqrt2OverPi = 0.79788456080286535588;
constexpr double kCubic = 0.044715;

// gelu(x) = x s, s = 1 / (1 + exp(-2 sqrt(2/pi) (x + 0.044715 x^3)))
template <class T>
inline T gelu_gate(T x) {
  const T u = static_cast<T>(-2 * kSqrt2OverPi) * (x + static_cast<T>(kCubic) * x * x * x);
  return T(1) / (T(1) + exp_of(u));
}

template <class T>
void geglu(int64_t n, const T* __restrict gate, const T* __restrict up, T* __restrict y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] * gelu_gate(gate[i]) * up[i];
}

template <class T>
void geglu_backward(int64_t n, const T* __restrict gate, const T* __restrict up,
                    const T* __restrict dy, T* __restrict dgate, T* __restrict dup) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    const T x = gate[i];
    const T s = gelu_gate(x);
    const T du = static_cast<T>(2 * kSqrt2OverPi) * (T(1) + static_cast<T>(3 * kCubic) * x * x);
    dgate[i] += dy[i] * up[i] * (s + x * s * (T(1) - s) * du);
    dup[i] += dy[i] * x * s;
  }
}

template <class T>
void softcap(int64_t n, T cap, const T* __restrict x, T* __restrict y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = cap * tanh_of(x[i] / cap);
}

template <class T>
void softcap_backward(int64_t n, T cap, const T* __restrict y, const T* __restrict dy,
                      T* __restrict dx) noexcept {
  const T inverse = T(1) / cap;
  for (int64_t i = 0; i < n; ++i) {
    const T t = y[i] * inverse;
    dx[i] += dy[i] * (T(1) - t * t);
  }
}

template <class T>
T rms_norm(int64_t n, T eps, const T* __restrict x, const T* __restrict w,
           T* __restrict y) noexcept {
  const T r = T(1) / sqrt_of(dot(n, x, x) / static_cast<T>(n) + eps);
  if (w) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * r * w[i];
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * r;
  }
  return r;
}

template <class T>
void rms_norm_backward(int64_t n, T r, const T* __restrict x, const T* __restrict w,
                       const T* __restrict dy, T* __restrict dx, T* __restrict dw) noexcept {
  T sum;
  if (w) {
    Vector<T> s = {};
    int64_t i = 0;
    for (; i + kWidth<T> <= n; i += kWidth<T>) s += load(x + i) * (load(w + i) * load(dy + i));
    sum = sum_lanes<T>(s);
    for (; i < n; ++i) sum += x[i] * (w[i] * dy[i]);
    const T back = r * r * r * sum / static_cast<T>(n);
    for (int64_t j = 0; j < n; ++j) {
      dx[j] += r * w[j] * dy[j] - back * x[j];
      dw[j] += dy[j] * x[j] * r;
    }
  } else {
    sum = dot(n, x, dy);
    const T back = r * r * r * sum / static_cast<T>(n);
    for (int64_t j = 0; j < n; ++j) dx[j] += r * dy[j] - back * x[j];
  }
}

template <class T>
void rope(int64_t half, const T* __restrict cos, const T* __restrict sin, const T* __restrict x,
          T* __restrict y) noexcept {
  for (int64_t i = 0; i < half; ++i) {
    y[i] = x[i] * cos[i] - x[i + half] * sin[i];
    y[i + half] = x[i + half] * cos[i] + x[i] * sin[i];
  }
}

template <class T>
void rope_backward(int64_t half, const T* __restrict cos, const T* __restrict sin,
                   const T* __restrict dy, T* __restrict dx) noexcept {
  for (int64_t i = 0; i < half; ++i) {
    dx[i] += dy[i] * cos[i] + dy[i + half] * sin[i];
    dx[i + half] += dy[i + half] * cos[i] - dy[i] * sin[i];
  }
}

// y = exp(x - max), returns the sum; y may be x.
template <class T>
T exp_row(int64_t n, T max, const T* x, T* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = exp_of(x[i] - max);
  return sum_of(n, y);
}

template <class T>
void softmax(int64_t n, T* x) noexcept {
  const T inverse = T(1) / exp_row(n, max_of(n, x), x, x);
  for (int64_t i = 0; i < n; ++i) x[i] *= inverse;
}

template <class T>
void softmax_backward(int64_t n, const T* __restrict p, T* __restrict dp) noexcept {
  const T mean = dot(n, p, static_cast<const T*>(dp));
  for (int64_t i = 0; i < n; ++i) dp[i] = p[i] * (dp[i] - mean);
}

template <class T>
T cross_entropy(int64_t n, const T* __restrict x, int64_t target, T weight,
                T* __restrict dx) noexcept {
  const T max = max_of(n, x);
  constexpr int64_t kChunk = 256;
  T sum = 0;
  T buffer[kChunk];
  for (int64_t i = 0; i < n; i += kChunk) {
    sum += exp_row(n - i < kChunk ? n - i : kChunk, max, x + i, buffer);
  }
  if (dx) {
    const T factor = weight / sum;
    for (int64_t i = 0; i < n; ++i) dx[i] += factor * exp_of(x[i] - max);
    dx[target] -= weight;
  }
  return log_of(sum) - (x[target] - max);
}

template <class T>
T distillation(int64_t n, const T* __restrict teacher, const T* __restrict x, T weight,
               T* __restrict dx, T* __restrict scratch) noexcept {
  const T max_t = max_of(n, teacher), max_x = max_of(n, x);
  constexpr int64_t kChunk = 256;
  T buffer[kChunk];
  T sum_x = 0;
  for (int64_t i = 0; i < n; i += kChunk) {
    sum_x += exp_row(n - i < kChunk ? n - i : kChunk, max_x, x + i, buffer);
  }
  const T sum_t = exp_row(n, max_t, teacher, scratch);
  const T inverse_t = T(1) / sum_t, inverse_x = T(1) / sum_x;
  // sum p (log p - log q), with log p - log q = (t - max_t - log sum_t) - (x - max_x - log sum_x)
  const T shift = (max_x + log_of(sum_x)) - (max_t + log_of(sum_t));
  Vector<T> s = {};
  int64_t i = 0;
  for (; i + kWidth<T> <= n; i += kWidth<T>) {
    s += load(scratch + i) * (load(teacher + i) - load(x + i) + shift);
  }
  T sum = sum_lanes<T>(s);
  for (; i < n; ++i) sum += scratch[i] * (teacher[i] - x[i] + shift);
  if (dx) {
    for (int64_t j = 0; j < n; ++j) {
      dx[j] += weight * (exp_of(x[j] - max_x) * inverse_x - scratch[j] * inverse_t);
    }
  }
  return sum * inverse_t;
}

template <class T>
constexpr Loops<T> kTable = {add<T>,           scale<T>,
                             axpy<T>,          dot<T>,
                             geglu<T>,         geglu_backward<T>,
                             softcap<T>,       softcap_backward<T>,
                             rms_norm<T>,      rms_norm_backward<T>,
                             rope<T>,          rope_backward<T>,
                             softmax<T>,       softmax_backward<T>,
                             cross_entropy<T>, distillation<T>};

}  // namespace
}  // namespace carat::train
