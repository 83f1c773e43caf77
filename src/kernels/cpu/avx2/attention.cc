#if defined(__x86_64__)

#include "kernels/cpu/avx2/simd.h"
#include "kernels/cpu/avx2/table.h"
#include "kernels/kv_pages.h"

namespace carat::kernels::avx2 {
namespace {

CARAT_INLINE float max_lane(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// Scores of kKeys keys with kQueries queries: score[q * kKvPageTokens + key].
template <int kQueries, int kKeys>
CARAT_INLINE void score_tile(const float* q, const float* k, int64_t head_dim, float* score) {
  __m256 acc[kQueries][kKeys];
  for (int i = 0; i < kQueries; ++i) {
    for (int j = 0; j < kKeys; ++j) acc[i][j] = _mm256_setzero_ps();
  }
  int64_t d = 0;
  for (; d + 8 <= head_dim; d += 8) {
    __m256 qv[kQueries];
    for (int i = 0; i < kQueries; ++i) qv[i] = _mm256_loadu_ps(q + i * head_dim + d);
    for (int j = 0; j < kKeys; ++j) {
      const __m256 kv = _mm256_loadu_ps(k + j * head_dim + d);
      for (int i = 0; i < kQueries; ++i) acc[i][j] = _mm256_fmadd_ps(qv[i], kv, acc[i][j]);
    }
  }
  if (d < head_dim) {
    const __m256i mask = mask_of(head_dim - d);
    for (int j = 0; j < kKeys; ++j) {
      const __m256 kv = _mm256_maskload_ps(k + j * head_dim + d, mask);
      for (int i = 0; i < kQueries; ++i) {
        const __m256 qv = _mm256_maskload_ps(q + i * head_dim + d, mask);
        acc[i][j] = _mm256_fmadd_ps(qv, kv, acc[i][j]);
      }
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    float* out = score + i * kKvPageTokens;
    if constexpr (kKeys == 4) {
      _mm_storeu_ps(out, add_lanes(acc[i][0], acc[i][1], acc[i][2], acc[i][3]));
    } else {
      for (int j = 0; j < kKeys; ++j) out[j] = add_lanes(acc[i][j]);
    }
  }
}

template <int kQueries>
CARAT_INLINE void score_keys(const float* q, const KeySegment& keys, int64_t head_dim,
                             float* score) {
  int64_t i = 0;
  for (; i + 4 <= keys.n; i += 4) {
    score_tile<kQueries, 4>(q, keys.k + i * head_dim, head_dim, score + keys.first + i);
  }
  for (; i < keys.n; ++i) {
    score_tile<kQueries, 1>(q, keys.k + i * head_dim, head_dim, score + keys.first + i);
  }
}

// Turns the scores of a segment into weights, times the scales of the values; places that no key
// has get weight 0.
CARAT_INLINE void softmax_weights(const KeySegment& keys, float* score, float* max_out,
                                  float* sum_out) {
  if (keys.k_scale) {
    float* s = score + keys.first;
    for_each_8(keys.n, [&](auto load, auto store) {
      store(s, _mm256_mul_ps(load(s), load(keys.k_scale)));
    });
  }
  const int64_t last = keys.first + keys.n;
  const int64_t begin = keys.first / 8 * 8, end = (last + 7) / 8 * 8;
  for (int64_t i = begin; i < keys.first; ++i) score[i] = -__builtin_inff();
  for (int64_t i = last; i < end; ++i) score[i] = -__builtin_inff();
  // A NaN may or may not become the maximum; its own weight is NaN either way.
  __m256 most = _mm256_loadu_ps(score + begin);
  for (int64_t i = begin + 8; i < end; i += 8) {
    most = _mm256_max_ps(_mm256_loadu_ps(score + i), most);
  }
  const float max = max_lane(most);
  const __m256 m = _mm256_set1_ps(max);
  __m256 sum = _mm256_setzero_ps();
  for (int64_t i = begin; i < end; i += 8) {
    const __m256 w = exp_of(_mm256_sub_ps(_mm256_loadu_ps(score + i), m));
    sum = _mm256_add_ps(sum, w);
    _mm256_storeu_ps(score + i, w);
  }
  *max_out = max;
  *sum_out = add_lanes(sum);
  if (keys.v_scale) {
    float* s = score + keys.first;
    for_each_8(keys.n, [&](auto load, auto store) {
      store(s, _mm256_mul_ps(load(s), load(keys.v_scale)));
    });
  }
}

// Weighted sums of 8 * kVectors elements of the values for kQueries queries.
template <int kQueries, int kVectors>
CARAT_INLINE void value_tile(const KeySegment& keys, const float* weights, int64_t d,
                             int64_t head_dim, float* out) {
  __m256 acc[kQueries][kVectors];
  for (int i = 0; i < kQueries; ++i) {
    for (int j = 0; j < kVectors; ++j) acc[i][j] = _mm256_setzero_ps();
  }
  const float* v = keys.v + d;
  const float* w = weights + keys.first;
  for (int64_t key = 0; key < keys.n; ++key, v += head_dim, ++w) {
    __m256 vv[kVectors];
    for (int j = 0; j < kVectors; ++j) vv[j] = _mm256_loadu_ps(v + 8 * j);
    for (int i = 0; i < kQueries; ++i) {
      const __m256 wv = _mm256_broadcast_ss(w + i * kKvPageTokens);
      for (int j = 0; j < kVectors; ++j) acc[i][j] = _mm256_fmadd_ps(wv, vv[j], acc[i][j]);
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    for (int j = 0; j < kVectors; ++j) {
      _mm256_storeu_ps(out + i * head_dim + d + 8 * j, acc[i][j]);
    }
  }
}

template <int kQueries>
CARAT_INLINE void sum_values(const KeySegment& keys, const float* weights, int64_t head_dim,
                             float* out) {
  int64_t d = 0;
  for (; d + 32 <= head_dim; d += 32) {
    value_tile<kQueries, 4>(keys, weights, d, head_dim, out);
  }
  for (; d + 8 <= head_dim; d += 8) value_tile<kQueries, 1>(keys, weights, d, head_dim, out);
  if (d == head_dim) return;
  const __m256i mask = mask_of(head_dim - d);
  for (int i = 0; i < kQueries; ++i) {
    __m256 acc = _mm256_setzero_ps();
    const float* w = weights + i * kKvPageTokens + keys.first;
    for (int64_t key = 0; key < keys.n; ++key) {
      const __m256 v = _mm256_maskload_ps(keys.v + key * head_dim + d, mask);
      acc = _mm256_fmadd_ps(_mm256_broadcast_ss(w + key), v, acc);
    }
    _mm256_maskstore_ps(out + i * head_dim + d, mask, acc);
  }
}

template <int kQueries>
CARAT_INLINE void attend_queries(const float* q, const KeySegment& keys, int64_t head_dim,
                                 float* weights, float* max, float* sum, float* vectors) {
  score_keys<kQueries>(q, keys, head_dim, weights);
  for (int i = 0; i < kQueries; ++i) {
    softmax_weights(keys, weights + i * kKvPageTokens, max + i, sum + i);
  }
  sum_values<kQueries>(keys, weights, head_dim, vectors);
}

}  // namespace

void attend(const float* q, int64_t n_q, const KeySegment& keys, int64_t head_dim, float* weights,
            float* max, float* sum, float* vectors) noexcept {
  int64_t i = 0;
  for (; i + 2 <= n_q; i += 2) {
    attend_queries<2>(q + i * head_dim, keys, head_dim, weights, max + i, sum + i,
                      vectors + i * head_dim);
  }
  if (i < n_q) {
    attend_queries<1>(q + i * head_dim, keys, head_dim, weights, max + i, sum + i,
                      vectors + i * head_dim);
  }
}

void join(float* total_max, float* total_sum, float* total_vectors, const float* max,
          const float* sum, const float* vectors, int64_t n_q, int64_t head_dim) noexcept {
  for (int64_t i = 0; i < n_q; ++i) {
    const float most = max[i] > total_max[i] ? max[i] : total_max[i];
    const float keep = exp_of(total_max[i] - most), take = exp_of(max[i] - most);
    total_max[i] = most;
    total_sum[i] = __builtin_fmaf(sum[i], take, total_sum[i] * keep);
    const __m256 k = _mm256_set1_ps(keep), f = _mm256_set1_ps(take);
    float* total = total_vectors + i * head_dim;
    const float* next = vectors + i * head_dim;
    for_each_8(head_dim, [&](auto load, auto store) {
      store(total, _mm256_fmadd_ps(load(next), f, _mm256_mul_ps(load(total), k)));
    });
  }
}

void finish(float* vectors, const float* sum, int64_t n_q, int64_t head_dim) noexcept {
  for (int64_t i = 0; i < n_q; ++i, vectors += head_dim) {
    const __m256 s = _mm256_set1_ps(sum[i]);
    for_each_8(head_dim,
               [&](auto load, auto store) { store(vectors, _mm256_div_ps(load(vectors), s)); });
  }
}

}  // namespace carat::kernels::avx2

#endif
