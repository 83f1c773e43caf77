// Attention over int8 pages with VNNI: a code of 16 bits is 128 * high + low, both of which fit the
// product of unsigned with signed bytes.
#if defined(__x86_64__)

#include "kernels/cpu/simd/code_attention.h"

#include <immintrin.h>

#include "kernels/cpu/avx512/code_attention.h"
#include "kernels/cpu/avx512/floats.h"

namespace carat::kernels::avx512 {
namespace {

struct Isa {
  using Ints = __m512i;
  using Floats = __m512;
  using Mask = __mmask16;
  using Eight = __m256;
  using Bytes = __m512i;
  struct Codes {
    __m512i high, low;
  };
  struct Sum {
    __m512i high, low;
  };
  template <int k>
  struct Count {
    static constexpr int value = k;
  };
  static constexpr int kVectors = 4, kQueries = 2;

  static CARAT_INLINE Bytes load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static CARAT_INLINE Codes load_codes(const int16_t* p) {
    int32_t high, low;
    __builtin_memcpy(&high, p, sizeof high);
    __builtin_memcpy(&low, p + 2, sizeof low);
    return {_mm512_set1_epi32(high), _mm512_set1_epi32(low)};
  }
  // For every step four high parts (floor(code / 128), -128..127), then four low ones (0..127).
  static CARAT_INLINE void store_codes(int16_t* p, Ints c) {
    const __m128i high = _mm512_cvtepi32_epi8(_mm512_srai_epi32(c, 7));
    const __m128i low = _mm512_cvtepi32_epi8(_mm512_and_si512(c, _mm512_set1_epi32(127)));
    __m128i* to = reinterpret_cast<__m128i*>(p);
    _mm_storeu_si128(to, _mm_unpacklo_epi32(high, low));
    _mm_storeu_si128(to + 1, _mm_unpackhi_epi32(high, low));
  }
  static CARAT_INLINE Sum start(int32_t n) {
    return {_mm512_setzero_si512(), _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_set1_epi32(n))};
  }
  static CARAT_INLINE void add_products(Sum& s, Bytes b, Codes c) {
    // gcc moves the sums of the intrinsic from register to register.
    asm("vpdpbusd %2, %1, %0" : "+v"(s.high) : "v"(b), "v"(c.high));
    asm("vpdpbusd %2, %1, %0" : "+v"(s.low) : "v"(b), "v"(c.low));
  }
  static CARAT_INLINE Ints total(Sum s) {
    return _mm512_add_epi32(_mm512_slli_epi32(s.high, 7), s.low);
  }

  static CARAT_INLINE Ints load_ints(const int32_t* p) { return _mm512_loadu_si512(p); }
  static CARAT_INLINE void store_ints(int32_t* p, Ints x) { _mm512_storeu_si512(p, x); }
  static CARAT_INLINE Ints zero_ints() { return _mm512_setzero_si512(); }
  static CARAT_INLINE Ints add_ints(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static CARAT_INLINE Ints max_ints(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
  static CARAT_INLINE Ints magnitude(Floats x) {
    return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
  }
  static CARAT_INLINE uint32_t largest_int(Ints x) {
    return static_cast<uint32_t>(_mm512_reduce_max_epi32(x));
  }
  static CARAT_INLINE int32_t sum_ints(Ints x) { return _mm512_reduce_add_epi32(x); }
  static CARAT_INLINE Ints round(Floats x) { return _mm512_cvtps_epi32(x); }
  static CARAT_INLINE Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }

  static CARAT_INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
  static CARAT_INLINE Floats load(const float* p, int64_t n) {
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
  }
  static CARAT_INLINE void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
  static CARAT_INLINE void store(float* p, Floats x, int64_t n) {
    _mm512_mask_storeu_ps(p, first_lanes(n), x);
  }
  static CARAT_INLINE Floats splat(float x) { return _mm512_set1_ps(x); }
  static CARAT_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static CARAT_INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static CARAT_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static CARAT_INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
  static CARAT_INLINE Floats exp(Floats x) { return exp_of(x); }
  // The order of comparisons does not matter to the result.
  static CARAT_INLINE float largest(Floats x) { return _mm512_reduce_max_ps(x); }
  static CARAT_INLINE Eight zero_eight() { return _mm256_setzero_ps(); }
  static CARAT_INLINE Eight add_halves(Eight s, Floats x) {
    return _mm256_add_ps(_mm256_add_ps(s, _mm512_castps512_ps256(x)), _mm512_extractf32x8_ps(x, 1));
  }
  static CARAT_INLINE float add_lanes(Eight s) { return avx512::add_lanes(s); }

  // Lanes [begin, end).
  static CARAT_INLINE Mask lanes(int32_t begin, int32_t end) {
    const int32_t b = begin < 0 ? 0 : begin > 16 ? 16 : begin;
    const int32_t e = end < 0 ? 0 : end > 16 ? 16 : end;
    return static_cast<Mask>(((1u << e) - 1u) & ~((1u << b) - 1u));
  }
  static CARAT_INLINE Floats select(Mask m, Floats a, Floats b) {
    return _mm512_mask_blend_ps(m, b, a);
  }
};

}  // namespace

void round_rows(const float* rows, int64_t n, int64_t cols, const CodeRows& out) noexcept {
  simd::round_all<Isa>(rows, n, cols, out);
}

void weigh_codes(const CodeRows& q, int64_t n_q, const CodePage& page, const Places* seen,
                 int64_t head_dim, const uint8_t* next, const CodeRows& p, float* max,
                 float* sum) noexcept {
  simd::weigh_all<Isa>(q, n_q, page, seen, head_dim, next, p, max, sum);
}

void join_weights(float* total_max, float* total_sum, const float* max, const float* sum, int64_t n,
                  float* keep, float* take) noexcept {
  simd::join_all_weights<Isa>(total_max, total_sum, max, sum, n, keep, take);
}

void join_values(const CodeRows& p, int64_t n_q, const uint8_t* v, int64_t n_dims,
                 const uint8_t* next, const float* keep, const float* take, float* totals,
                 int64_t stride) noexcept {
  simd::join_all<Isa>(p, n_q, v, n_dims, next, keep, take, totals, stride);
}

}  // namespace carat::kernels::avx512

#endif
