#if defined(__x86_64__)

#include "kernels/cpu/simd/code_attention.h"

#include "kernels/cpu/avx2/code_isa.h"
#include "kernels/cpu/avxvnni/code_attention.h"

namespace carat::kernels::avxvnni {
namespace {

// A code of 16 bits is 128 * high + low, both of which fit the product of unsigned with signed
// bytes.
struct CodeIsa : avx2::CodeIsa {
  using Bytes = Ints;
  struct Codes {
    __m256i high, low;
  };
  struct Sum {
    Ints high, low;
  };
  static constexpr int kVectors = 1, kQueries = 3;

  static CARAT_INLINE Bytes load_bytes(const uint8_t* p) {
    return load_ints(reinterpret_cast<const int32_t*>(p));
  }
  static CARAT_INLINE Codes load_codes(const int16_t* p) {
    return {avx2::broadcast_i32(p), avx2::broadcast_i32(p + 2)};
  }
  // For every step four high parts (floor(code / 128), -128..127), then four low ones (0..127).
  static CARAT_INLINE void store_codes(int16_t* p, Ints c) {
    const __m256i low_bits = _mm256_set1_epi32(127);
    for (int h = 0; h < 2; ++h) {
      const __m256i high = _mm256_srai_epi32(c.v[h], 7), low = _mm256_and_si256(c.v[h], low_bits);
      // In each half: four high parts, four low ones, as int16 and then as bytes.
      const __m256i words = _mm256_packs_epi32(high, low);
      const __m256i bytes = _mm256_packs_epi16(words, words);
      const __m256i joined = _mm256_permute4x64_epi64(bytes, 0x08);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p) + h, _mm256_castsi256_si128(joined));
    }
  }
  static CARAT_INLINE Sum start(int32_t n) { return {zero_ints(), avx2::CodeIsa::start(n)}; }
  static CARAT_INLINE void add_products(Sum& s, const Bytes& b, const Codes& c) {
    for (int h = 0; h < 2; ++h) {
      s.high.v[h] = _mm256_dpbusd_avx_epi32(s.high.v[h], b.v[h], c.high);
      s.low.v[h] = _mm256_dpbusd_avx_epi32(s.low.v[h], b.v[h], c.low);
    }
  }
  static CARAT_INLINE Ints total(const Sum& s) {
    return ints(
        [&](int h) { return _mm256_add_epi32(_mm256_slli_epi32(s.high.v[h], 7), s.low.v[h]); });
  }
};

}  // namespace

void round_rows(const float* rows, int64_t n, int64_t cols, const CodeRows& out) noexcept {
  simd::round_all<CodeIsa>(rows, n, cols, out);
}

void weigh_codes(const CodeRows& q, int64_t n_q, const CodePage& page, const Places* seen,
                 int64_t head_dim, const uint8_t* next, const CodeRows& p, float* max,
                 float* sum) noexcept {
  simd::weigh_all<CodeIsa>(q, n_q, page, seen, head_dim, next, p, max, sum);
}

void join_weights(float* total_max, float* total_sum, const float* max, const float* sum, int64_t n,
                  float* keep, float* take) noexcept {
  simd::join_all_weights<CodeIsa>(total_max, total_sum, max, sum, n, keep, take);
}

void join_values(const CodeRows& p, int64_t n_q, const uint8_t* v, int64_t n_dims,
                 const uint8_t* next, const float* keep, const float* take, float* totals,
                 int64_t stride) noexcept {
  simd::join_all<CodeIsa>(p, n_q, v, n_dims, next, keep, take, totals, stride);
}

}  // namespace carat::kernels::avxvnni

#endif
