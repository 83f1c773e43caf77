// Rounding to int8 and to and from binary16.
#if defined(__x86_64__)

#include "kernels/cpu/avx2/simd.h"
#include "kernels/cpu/avx2/table.h"

namespace carat::kernels::avx2 {
namespace {

// Magnitudes compare as integers, which orders NaN above infinity above the rest.
CARAT_INLINE __m256i magnitude(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

CARAT_INLINE uint32_t largest(__m256i m) {
  __m128i v = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0x4e));
  v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(v));
}

struct Scale {
  float scale;    // 0 for zeros, NaN if a value is not finite
  float inverse;  // 0 in both cases
};

CARAT_INLINE Scale scale_of(uint32_t bits) {
  float max;
  __builtin_memcpy(&max, &bits, sizeof max);
  if (bits >= 0x7f800000u) return {__builtin_nanf(""), 0.0f};
  if (max < scalar::kQuantizeZero) return {0.0f, 0.0f};
  const float scale = max / 127.0f;
  return {scale, 1.0f / scale};
}

// 32 int32 in four vectors to 32 int8 in order.
CARAT_INLINE __m256i pack_codes(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  return _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// scalar::static_level, operation by operation; NaN in the second operand stays.
CARAT_INLINE __m256 static_level(__m256 x, __m256 scale) {
  __m256 level =
      _mm256_round_ps(_mm256_div_ps(x, scale), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  level = _mm256_min_ps(_mm256_set1_ps(127.0f), level);
  return _mm256_max_ps(_mm256_set1_ps(-128.0f), level);
}

}  // namespace

void quantize_rows(const float* rows, const QuantizedRows& x) noexcept {
  const int64_t n_blocks = x.n * (x.cols / kActivationBlock);
  const __m256i ones8 = _mm256_set1_epi8(1), ones16 = _mm256_set1_epi16(1);
  for (int64_t b = 0; b < n_blocks; ++b, rows += kActivationBlock) {
    __m256 v[4];
    for (int j = 0; j < 4; ++j) v[j] = _mm256_loadu_ps(rows + 8 * j);
    const Scale s =
        scale_of(largest(_mm256_max_epi32(_mm256_max_epi32(magnitude(v[0]), magnitude(v[1])),
                                          _mm256_max_epi32(magnitude(v[2]), magnitude(v[3])))));
    x.scales[b] = s.scale;
    __m256i codes = _mm256_setzero_si256();
    if (s.inverse != 0.0f) {
      const __m256 inverse = _mm256_set1_ps(s.inverse);
      __m256i c[4];
      for (int j = 0; j < 4; ++j) c[j] = _mm256_cvtps_epi32(_mm256_mul_ps(v[j], inverse));
      codes = pack_codes(c[0], c[1], c[2], c[3]);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(x.codes + b * kActivationBlock), codes);
    // int32 sums of 4 codes each: lanes 0..3 the first half, 4..7 the second.
    const __m256i fours = _mm256_madd_epi16(_mm256_maddubs_epi16(ones8, codes), ones16);
    __m128i h = _mm_hadd_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
    h = _mm_hadd_epi32(h, h);
    const int32_t low = _mm_cvtsi128_si32(h), high = _mm_extract_epi32(h, 1);
    x.half_sums[2 * b] = static_cast<int16_t>(low);
    x.half_sums[2 * b + 1] = static_cast<int16_t>(high);
    x.sums[b] = 8 * (low + high);
    x.scaled_sums[b] = s.scale * static_cast<float>(low + high);
  }
}

void to_i8(const float* x, int64_t n, int8_t* codes, float* scale) noexcept {
  __m256i most = _mm256_setzero_si256();
  for_each_8(n, [&](auto load, auto) { most = _mm256_max_epi32(most, magnitude(load(x))); });
  const Scale s = scale_of(largest(most));
  *scale = s.scale;
  // Values that are not finite give inverse 0; they must not reach the multiplication.
  const __m256 inverse = _mm256_set1_ps(s.inverse);
  const __m256 keep = _mm256_castsi256_ps(_mm256_set1_epi32(s.inverse != 0.0f ? -1 : 0));
  int64_t i = 0;
  for_each_8(n, [&](auto load, auto) {
    const __m256 v = _mm256_mul_ps(_mm256_and_ps(load(x), keep), inverse);
    const __m256i c = _mm256_cvtps_epi32(v);
    const __m128i c16 = _mm_packs_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
    const __m128i c8 = _mm_packs_epi16(c16, c16);
    const int64_t length = n - i < 8 ? n - i : 8;
    __builtin_memcpy(codes + i, &c8, static_cast<size_t>(length));
    i += 8;
  });
}

float static_codes(const float* x, int64_t n, float scale, int8_t* codes, int32_t* sum) noexcept {
  const __m256 s = _mm256_set1_ps(scale);
  __m256 numbers = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
  __m256i sums = _mm256_setzero_si256();
  const auto code = [&](__m256 v) __attribute__((always_inline)) {
    const __m256 level = static_level(v, s);
    const __m256 is_number = _mm256_cmp_ps(level, level, _CMP_ORD_Q);
    numbers = _mm256_and_ps(numbers, is_number);
    const __m256i c = _mm256_cvtps_epi32(_mm256_and_ps(level, is_number));
    sums = _mm256_add_epi32(sums, c);
    return c;
  };
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    __m256i c[4];
    for (int j = 0; j < 4; ++j) c[j] = code(_mm256_loadu_ps(x + i + 8 * j));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + i), pack_codes(c[0], c[1], c[2], c[3]));
  }
  for (; i < n; i += 8) {
    const int64_t length = n - i < 8 ? n - i : 8;
    const __m256i c = code(_mm256_maskload_ps(x + i, mask_of(length)));
    const __m256i zero = _mm256_setzero_si256();
    const __m256i packed = pack_codes(c, zero, zero, zero);
    __builtin_memcpy(codes + i, &packed, static_cast<size_t>(length));
  }
  __m128i total = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  total = _mm_hadd_epi32(total, total);
  *sum = _mm_cvtsi128_si32(_mm_hadd_epi32(total, total));
  return _mm256_movemask_ps(numbers) == 0xff ? scale : __builtin_nanf("");
}

void static_round(const float* x, int64_t n, float scale, float* y) noexcept {
  const __m256 s = _mm256_set1_ps(scale);
  for_each_8(n,
             [&](auto load, auto store) { store(y, _mm256_mul_ps(static_level(load(x), s), s)); });
}

void to_f16(const float* x, int64_t n, uint16_t* y) noexcept {
  int64_t i = 0;
  for_each_8(n, [&](auto load, auto) {
    const __m128i h = _mm256_cvtps_ph(load(x), _MM_FROUND_TO_NEAREST_INT);
    const int64_t length = n - i < 8 ? n - i : 8;
    __builtin_memcpy(y + i, &h, static_cast<size_t>(length) * sizeof(uint16_t));
    i += 8;
  });
}

void from_f16(const uint16_t* x, int64_t n, float* y) noexcept {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, _mm256_cvtph_ps(load_128(x + i)));
  for (; i < n; ++i) y[i] = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(x[i])));
}

}  // namespace carat::kernels::avx2

#endif
