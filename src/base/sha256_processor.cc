// The SHA-256 instructions of x86 and of 64-bit ARM. The functions are compiled for them alone, and
// run only where they are there.
#include "base/sha256.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace carat::sha256 {

#if defined(__x86_64__)
namespace {

// Four rounds an instruction pair; the state lies in registers as ABEF and CDGH.
__attribute__((target("sha,sse4.1"))) void compress_x86(uint32_t state[8], const std::byte* blocks,
                                                        int64_t n) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  const __m128i dcba = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state));
  const __m128i hgfe = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state + 4));
  const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
  __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
  __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
  for (; n > 0; --n, blocks += 64) {
    const __m128i abef_before = abef, cdgh_before = cdgh;
    __m128i w[4];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      __m128i& now = w[i & 3];
      if (i < 4) {
        now = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks) + i), swap);
      } else {
        const __m128i last = w[(i + 3) & 3];
        const __m128i middle = _mm_alignr_epi8(last, w[(i + 2) & 3], 4);
        now = _mm_sha256msg1_epu32(now, w[(i + 1) & 3]);
        now = _mm_sha256msg2_epu32(_mm_add_epi32(now, middle), last);
      }
      const __m128i k = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kRound) + i);
      const __m128i sum = _mm_add_epi32(now, k);
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  const __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

bool has_instructions() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1) || !(c & bit_SSSE3)) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29)) != 0;
}

}  // namespace

Compress best_compress() { return has_instructions() ? compress_x86 : compress_portable; }

#elif defined(__aarch64__) && defined(__linux__)
namespace {

__attribute__((target("+crypto"))) void compress_arm(uint32_t state[8], const std::byte* blocks,
                                                     int64_t n) {
  uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);
  for (; n > 0; --n, blocks += 64) {
    const uint32x4_t abcd_before = abcd, efgh_before = efgh;
    uint32x4_t w[4];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      uint32x4_t& now = w[i & 3];
      if (i < 4) {
        now = vreinterpretq_u32_u8(
            vrev32q_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(blocks) + 16 * i)));
      } else {
        now = vsha256su1q_u32(vsha256su0q_u32(now, w[(i + 1) & 3]), w[(i + 2) & 3], w[(i + 3) & 3]);
      }
      const uint32x4_t sum = vaddq_u32(now, vld1q_u32(kRound + 4 * i));
      const uint32x4_t before = abcd;
      abcd = vsha256hq_u32(abcd, efgh, sum);
      efgh = vsha256h2q_u32(efgh, before, sum);
    }
    abcd = vaddq_u32(abcd, abcd_before);
    efgh = vaddq_u32(efgh, efgh_before);
  }
  vst1q_u32(state, abcd);
  vst1q_u32(state + 4, efgh);
}

}  // namespace

Compress best_compress() {
  return (getauxval(AT_HWCAP) & HWCAP_SHA2) != 0 ? compress_arm : compress_portable;
}

#else

Compress best_compress() { return compress_portable; }

#endif

}  // namespace carat::sha256
