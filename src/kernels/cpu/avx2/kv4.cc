// int4 pages as int8 pages: half * step + (128 - zero * step) modulo 256. A step times a half byte
// is below 256, so that one 16-bit product serves two bytes which share the step.
#if defined(__x86_64__)

#include "kernels/cpu/avx2/simd.h"
#include "kernels/cpu/avx2/table.h"
#include "kernels/kv_pages.h"

namespace carat::kernels::avx2 {
namespace {

constexpr int64_t kVector = 32, kPlaces = kKvPageTokens;

CARAT_INLINE __m256i load_bytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
CARAT_INLINE void store_bytes(uint8_t* p, __m256i x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}

struct Halves {
  __m256i low, high;
};

CARAT_INLINE Halves halves_of(__m256i pairs) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(pairs, mask), _mm256_and_si256(_mm256_srli_epi16(pairs, 4), mask)};
}

// Bytes step and 128 - zero * step of block bytes that stand in 16 bits each.
struct Parts {
  __m256i step, offset;
};

CARAT_INLINE Parts parts_of(__m256i block) {
  const __m256i step =
      _mm256_add_epi16(_mm256_and_si256(block, _mm256_set1_epi16(15)), _mm256_set1_epi16(1));
  const __m256i offset = _mm256_sub_epi16(_mm256_set1_epi16(128),
                                          _mm256_mullo_epi16(_mm256_srli_epi16(block, 4), step));
  return {step, _mm256_and_si256(offset, _mm256_set1_epi16(0xff))};
}

}  // namespace

void unpack_k4(const uint8_t* codes, const uint8_t* blocks, int64_t n_dims, const uint8_t* next,
               uint8_t* k) noexcept {
  constexpr int64_t kLine = 4 * kPlaces;  // bytes of 4 elements, or 8 in halves
  // The first byte of a 32-bit lane in all four, and in both halves with zeros between.
  const __m256i four = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
  const __m256i two = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 0, -1, 4, -1, 4, -1, 8, -1, 8, -1, 12, -1, 12, -1));
  for (int64_t d = 0; d < n_dims; d += kKv4Block) {
    for (int64_t i = 0; i < kPlaces; i += 8) {
      const Parts parts = parts_of(
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(blocks + i))));
      const __m256i step = _mm256_shuffle_epi8(parts.step, two);
      const __m256i offset = _mm256_shuffle_epi8(parts.offset, four);
      for (int64_t line = 0; line < 2; ++line) {
        const uint8_t* from = codes + line * kLine + 4 * i;
        if (next) __builtin_prefetch(next + (from - codes), 0, 2);
        const Halves h = halves_of(load_bytes(from));
        uint8_t* to = k + 2 * line * kLine + 4 * i;
        store_bytes(to, _mm256_add_epi8(_mm256_mullo_epi16(h.low, step), offset));
        store_bytes(to + kLine, _mm256_add_epi8(_mm256_mullo_epi16(h.high, step), offset));
      }
    }
    blocks += kPlaces;
    codes += 2 * kLine;
    k += 4 * kLine;
    if (next) next += 2 * kLine;
  }
}

void unpack_v4(const uint8_t* codes, const uint8_t* blocks, int64_t n_dims, const uint8_t* next,
               uint8_t* v) noexcept {
  constexpr int64_t kBlock = 16 * kPlaces;  // bytes of 16 elements, or 32 in halves
  const __m256i even = _mm256_set1_epi16(0xff);
  for (int64_t d = 0; d < n_dims; d += 32) {
    for (int half = 0; half < 2; ++half) {
      uint8_t steps[kPlaces], offsets[kPlaces];
      for (int64_t i = 0; i < kPlaces; i += kVector) {
        const __m256i b = load_bytes(blocks + i);
        const Parts e = parts_of(_mm256_and_si256(b, even)), o = parts_of(_mm256_srli_epi16(b, 8));
        store_bytes(steps + i, _mm256_or_si256(e.step, _mm256_slli_epi16(o.step, 8)));
        store_bytes(offsets + i, _mm256_or_si256(e.offset, _mm256_slli_epi16(o.offset, 8)));
      }
      for (int64_t i = 0; i < kPlaces; i += 4) {
        const __m256i step = broadcast_i32(steps + i), offset = broadcast_i32(offsets + i);
        const __m256i step_even = _mm256_and_si256(step, even);
        const __m256i step_odd = _mm256_srli_epi16(step, 8);
        for (int64_t at = 16 * i; at < 16 * i + 64; at += kVector) {
          if (next && half == 0) __builtin_prefetch(next + at, 0, 2);
          const Halves both = halves_of(load_bytes(codes + at));
          const __m256i h = half == 0 ? both.low : both.high;
          const __m256i x = _mm256_mullo_epi16(_mm256_and_si256(h, even), step_even);
          const __m256i y = _mm256_mullo_epi16(_mm256_andnot_si256(even, h), step_odd);
          store_bytes(v + at, _mm256_add_epi8(_mm256_or_si256(x, y), offset));
        }
      }
      blocks += kPlaces;
      v += kBlock;
    }
    codes += kBlock;
    if (next) next += kBlock;
  }
}

}  // namespace carat::kernels::avx2

#endif
