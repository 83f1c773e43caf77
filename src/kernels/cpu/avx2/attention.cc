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

// kKeys keys from `key` on with all queries, two at a time.
template <int kKeys>
CARAT_INLINE void score_keys(const float* q, int64_t n_q, const KeySegment& keys, int64_t key,
                             int64_t head_dim, float* score) {
  const float* k = keys.k + key * head_dim;
  score += keys.first + key;
  int64_t i = 0;
  for (; i + 2 <= n_q; i += 2) {
    score_tile<2, kKeys>(q + i * head_dim, k, head_dim, score + i * kKvPageTokens);
  }
  if (i < n_q) score_tile<1, kKeys>(q + i * head_dim, k, head_dim, score + i * kKvPageTokens);
}

// Turns the scores of a segment into weights; places that no key has get weight 0.
CARAT_INLINE void softmax_weights(const KeySegment& keys, float* score, float* max_out,
                                  float* sum_out) {
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
}

// Values that stay in the first-level cache while all queries use them.
constexpr int64_t kKeyBlock = 8;

// Adds weights[q][key] * value[key] of keys [begin, end) to 8 * kVectors elements of kQueries
// results; begin 0 starts from zero.
template <int kQueries, int kVectors>
CARAT_INLINE void value_tile(const KeySegment& keys, int64_t begin, int64_t end,
                             const float* weights, int64_t d, int64_t head_dim, float* out) {
  __m256 acc[kQueries][kVectors];
  for (int i = 0; i < kQueries; ++i) {
    for (int j = 0; j < kVectors; ++j) {
      const float* from = out + i * head_dim + d + 8 * j;
      acc[i][j] = begin == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(from);
    }
  }
  const float* w = weights + keys.first;
  for (int64_t key = begin; key < end; ++key) {
    const float* v = keys.v + key * head_dim + d;
    __m256 vv[kVectors];
    for (int j = 0; j < kVectors; ++j) vv[j] = _mm256_loadu_ps(v + 8 * j);
    for (int i = 0; i < kQueries; ++i) {
      const __m256 wv = _mm256_broadcast_ss(w + i * kKvPageTokens + key);
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
CARAT_INLINE void add_values(const KeySegment& keys, int64_t begin, int64_t end,
                             const float* weights, int64_t head_dim, float* out) {
  int64_t d = 0;
  for (; d + 32 <= head_dim; d += 32) {
    value_tile<kQueries, 4>(keys, begin, end, weights, d, head_dim, out);
  }
  for (; d + 8 <= head_dim; d += 8) {
    value_tile<kQueries, 1>(keys, begin, end, weights, d, head_dim, out);
  }
  if (d == head_dim) return;
  const __m256i mask = mask_of(head_dim - d);
  for (int i = 0; i < kQueries; ++i) {
    float* to = out + i * head_dim + d;
    __m256 acc = begin == 0 ? _mm256_setzero_ps() : _mm256_maskload_ps(to, mask);
    const float* w = weights + i * kKvPageTokens + keys.first;
    for (int64_t key = begin; key < end; ++key) {
      const __m256 v = _mm256_maskload_ps(keys.v + key * head_dim + d, mask);
      acc = _mm256_fmadd_ps(_mm256_broadcast_ss(w + key), v, acc);
    }
    _mm256_maskstore_ps(to, mask, acc);
  }
}

}  // namespace

void attend(const float* q, int64_t n_q, const KeySegment& keys, int64_t head_dim, float* weights,
            float* max, float* sum, float* vectors) noexcept {
  int64_t key = 0;
  for (; key + 4 <= keys.n; key += 4) score_keys<4>(q, n_q, keys, key, head_dim, weights);
  for (; key < keys.n; ++key) score_keys<1>(q, n_q, keys, key, head_dim, weights);
  for (int64_t i = 0; i < n_q; ++i) {
    softmax_weights(keys, weights + i * kKvPageTokens, max + i, sum + i);
  }
  for (int64_t begin = 0; begin < keys.n; begin += kKeyBlock) {
    const int64_t end = begin + kKeyBlock < keys.n ? begin + kKeyBlock : keys.n;
    int64_t i = 0;
    for (; i + 2 <= n_q; i += 2) {
      add_values<2>(keys, begin, end, weights + i * kKvPageTokens, head_dim,
                    vectors + i * head_dim);
    }
    if (i < n_q) {
      add_values<1>(keys, begin, end, weights + i * kKvPageTokens, head_dim,
                    vectors + i * head_dim);
    }
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
