// Softmax attention in segments of kKvPageTokens positions counted from position 0, so that the sum
// of a row depends only on its own position and window. A segment gives a partial result (maximum
// score, sum of weights, weighted sum of values); partials are joined in ascending order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/kv_pages.h"
#include "kernels/scalar/linear.h"
#include "kernels/scalar/math.h"

namespace carat::kernels::scalar {

// Positions [begin, end).
struct KeyRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// The keys that a query at `position` sees: (position - window, position], all up to it if window
// is 0.
inline KeyRange visible_keys(int64_t position, int64_t window) noexcept {
  return {window > 0 ? std::max<int64_t>(0, position - window + 1) : 0, position + 1};
}

// Consecutive keys inside one segment.
template <class T>
struct Segment {
  const T* k = nullptr;  // key i at k + i * stride, [head_dim]
  const T* v = nullptr;  // value i at v + i * stride, [head_dim]
  int64_t stride = 0;
  int64_t first = 0;  // place of key 0 in its segment: position mod kKvPageTokens
  int64_t n = 0;      // 1 <= n, first + n <= kKvPageTokens
};

template <class T>
struct Partial {
  T max;
  T sum;
};

// Scores of the keys, exp(score - max) as weights [n], and vector = sum of weights * values
// [head_dim], ascending. The sum of weights uses 8 lanes by place in the segment.
template <class T>
Partial<T> attend_segment(const T* q, const Segment<T>& s, int64_t head_dim, T* weights,
                          T* vector) noexcept {
  for (int64_t i = 0; i < s.n; ++i) {
    weights[i] = dot(q, s.k + i * s.stride, head_dim);
  }
  T max = weights[0];
  for (int64_t i = 1; i < s.n; ++i) max = weights[i] > max ? weights[i] : max;
  T lane[kLanes] = {};
  for (int64_t d = 0; d < head_dim; ++d) vector[d] = T(0);
  for (int64_t i = 0; i < s.n; ++i) {
    weights[i] = exp_of(weights[i] - max);
    lane[(s.first + i) % kLanes] += weights[i];
    const T* v = s.v + i * s.stride;
    for (int64_t d = 0; d < head_dim; ++d) vector[d] = std::fma(weights[i], v[d], vector[d]);
  }
  return {max, add_lanes(lane)};
}

// Joins the partial of the next segment into `total` (which began as the first segment's).
template <class T>
void join_partial(Partial<T>& total, T* total_vector, const Partial<T>& next, const T* next_vector,
                  int64_t head_dim) noexcept {
  const T max = next.max > total.max ? next.max : total.max;
  const T keep = exp_of(total.max - max), take = exp_of(next.max - max);
  total.max = max;
  total.sum = std::fma(next.sum, take, total.sum * keep);
  for (int64_t d = 0; d < head_dim; ++d) {
    total_vector[d] = std::fma(next_vector[d], take, total_vector[d] * keep);
  }
}

// One query over keys [keys.begin, keys.end) of a sequence whose K and V lie contiguously: position
// p at k + p * stride, v + p * stride. scratch: kKvPageTokens + head_dim elements.
// REQUIRES: keys not empty.
template <class T>
void attention_row(const T* q, const T* k, const T* v, int64_t stride, KeyRange keys,
                   int64_t head_dim, T* scratch, T* out) noexcept {
  T* weights = scratch;
  T* vector = scratch + kKvPageTokens;
  Partial<T> total{};
  for (int64_t begin = keys.begin; begin < keys.end;) {
    const int64_t end = std::min(keys.end, (begin / kKvPageTokens + 1) * kKvPageTokens);
    const Segment<T> s{.k = k + begin * stride,
                       .v = v + begin * stride,
                       .stride = stride,
                       .first = begin % kKvPageTokens,
                       .n = end - begin};
    if (begin == keys.begin) {
      total = attend_segment(q, s, head_dim, weights, out);
    } else {
      const Partial<T> next = attend_segment(q, s, head_dim, weights, vector);
      join_partial(total, out, next, vector, head_dim);
    }
    begin = end;
  }
  for (int64_t d = 0; d < head_dim; ++d) out[d] = out[d] / total.sum;
}

// All rows of one sequence: q [n, n_heads * head_dim] at positions[t], k and v
// [m, n_kv_heads * head_dim] at positions 0..m-1 -> out like q. Query head j reads K/V head
// j / (n_heads / n_kv_heads). scratch as above. REQUIRES: 0 <= positions[t] < m.
template <class T>
void attention(const T* q, const int32_t* positions, int64_t n, const T* k, const T* v,
               int64_t n_heads, int64_t n_kv_heads, int64_t head_dim, int64_t window, T* scratch,
               T* out) noexcept {
  const int64_t group = n_heads / n_kv_heads;
  const int64_t stride = n_kv_heads * head_dim;
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t h = 0; h < n_heads; ++h) {
      const int64_t at = (t * n_heads + h) * head_dim;
      const int64_t kv = h / group * head_dim;
      attention_row(q + at, k + kv, v + kv, stride, visible_keys(positions[t], window), head_dim,
                    scratch, out + at);
    }
  }
}

// -- int8 pages ----------------------------------------------------------------------------------

inline constexpr float kCodeMax = 16383.0f;

// Rounds n numbers to 16 bits, x = code * scale: scale = max|x| / 16383, code = round half to even
// of x * (1 / scale). All below 2^-100: scale 0; one not finite: scale NaN; codes 0 then.
inline float round_codes(const float* x, int64_t n, int16_t* codes) noexcept {
  float max = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    max = std::fabs(x[i]) > max ? std::fabs(x[i]) : max;
    finite = finite && std::isfinite(x[i]);
    codes[i] = 0;
  }
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  if (max < kQuantizeZero) return 0.0f;
  const float scale = max / kCodeMax;
  const float inverse = 1.0f / scale;
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = static_cast<int16_t>(std::nearbyint(x[i] * inverse));
  }
  return scale;
}

// A K/V head of an int8 page.
struct CodeSegment {
  const uint8_t* k = nullptr;
  const uint8_t* v = nullptr;
  const float* k_scale = nullptr;  // [kKvPageTokens]
  const float* v_scale = nullptr;
  int64_t begin = 0;  // places that are seen, [begin, end), not empty
  int64_t end = 0;
};

// Weights of the places and p = weight * scale of the value, rounded to codes [kKvPageTokens], 0
// where no key is seen. Integer sums stay below 2^31: 16383 * 128 * 1024.
inline Partial<float> weigh_codes(const int16_t* q, float q_scale, const CodeSegment& s,
                                  int64_t head_dim, int16_t* codes, float* code_scale) noexcept {
  float weights[kKvPageTokens] = {};
  float max = -std::numeric_limits<float>::infinity();
  for (int64_t i = s.begin; i < s.end; ++i) {
    int32_t sum = 0;
    for (int64_t d = 0; d < head_dim; ++d) sum += q[d] * (s.k[k_code_at(d, i)] - 128);
    weights[i] = static_cast<float>(sum) * (q_scale * s.k_scale[i]);
    max = weights[i] > max ? weights[i] : max;
  }
  float lane[kLanes] = {};
  for (int64_t i = s.begin; i < s.end; ++i) {
    weights[i] = exp_of(weights[i] - max);
    lane[i % kLanes] += weights[i];
    weights[i] *= s.v_scale[i];
  }
  *code_scale = round_codes(weights, kKvPageTokens, codes);
  return {max, add_lanes(lane)};
}

// vector = sum of codes * values [head_dim]. Sums stay below 2^31: 16383 * 128 * 64.
inline void add_code_values(const int16_t* codes, float code_scale, const uint8_t* v,
                            int64_t head_dim, float* vector) noexcept {
  for (int64_t d = 0; d < head_dim; ++d) {
    int32_t sum = 0;
    for (int64_t i = 0; i < kKvPageTokens; ++i) sum += codes[i] * (v[v_code_at(d, i)] - 128);
    vector[d] = static_cast<float>(sum) * code_scale;
  }
}

}  // namespace carat::kernels::scalar
