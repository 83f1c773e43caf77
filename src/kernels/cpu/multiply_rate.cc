#include "kernels/cpu/multiply_rate.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace carat::kernels {
namespace {

constexpr int kChains = 12;      // latency 4 or 5, two or three instructions a cycle
constexpr int kShortChains = 8;  // of additions, latency 1; leaves registers for the products
// On every loop over the chains: without it they would live in memory.
#define CARAT_UNROLL_CHAINS _Pragma("GCC unroll 12")

// Multiply-adds done in `steps` rounds. `sink` holds what the loop starts from and keeps its result
// alive.
using MultiplyLoop = int64_t (*)(int64_t steps, int32_t* sink);

// The products are in assembly, so that the compiler does not see that they repeat.
#if defined(__x86_64__)

__attribute__((target("avx2"))) int64_t loop_avx2(int64_t steps, int32_t* sink) {
  __m256i acc[kShortChains];
  const __m256i w = _mm256_set1_epi8(static_cast<char>(*sink & 7));
  const __m256i x = _mm256_set1_epi8(static_cast<char>(*sink & 3));
  CARAT_UNROLL_CHAINS
  for (int i = 0; i < kShortChains; ++i) acc[i] = _mm256_set1_epi16(static_cast<int16_t>(i));
  for (int64_t s = 0; s < steps; ++s) {
    CARAT_UNROLL_CHAINS
    for (int i = 0; i < kShortChains; ++i) {
      __m256i product;
      __asm__ volatile("vpmaddubsw %2, %1, %0" : "=x"(product) : "x"(w), "x"(x));
      acc[i] = _mm256_add_epi16(acc[i], product);
    }
  }
  CARAT_UNROLL_CHAINS
  for (int i = 1; i < kShortChains; ++i) acc[0] = _mm256_add_epi16(acc[0], acc[i]);
  *sink = _mm256_extract_epi32(acc[0], 0);
  return steps * kShortChains * 32;
}

// Only on processors with AVX-VNNI, whose encoding the compiler may not know as a target.
__attribute__((target("avx2"))) int64_t loop_avx_vnni(int64_t steps, int32_t* sink) {
  __m256i acc[kChains];
  const __m256i w = _mm256_set1_epi8(static_cast<char>(*sink & 7));
  const __m256i x = _mm256_set1_epi8(static_cast<char>(*sink & 3));
  CARAT_UNROLL_CHAINS
  for (int i = 0; i < kChains; ++i) acc[i] = _mm256_set1_epi32(i);
  for (int64_t s = 0; s < steps; ++s) {
    CARAT_UNROLL_CHAINS
    for (int i = 0; i < kChains; ++i) {
      __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc[i]) : "x"(w), "x"(x));
    }
  }
  CARAT_UNROLL_CHAINS
  for (int i = 1; i < kChains; ++i) acc[0] = _mm256_add_epi32(acc[0], acc[i]);
  *sink = _mm256_extract_epi32(acc[0], 0);
  return steps * kChains * 32;
}

__attribute__((target("avx512f,avx512vnni"))) int64_t loop_avx512_vnni(int64_t steps,
                                                                       int32_t* sink) {
  __m512i acc[kChains];
  const __m512i w = _mm512_set1_epi32((*sink & 7) * 0x01010101);
  const __m512i x = _mm512_set1_epi32((*sink & 3) * 0x01010101);
  CARAT_UNROLL_CHAINS
  for (int i = 0; i < kChains; ++i) acc[i] = _mm512_set1_epi32(i);
  for (int64_t s = 0; s < steps; ++s) {
    CARAT_UNROLL_CHAINS
    for (int i = 0; i < kChains; ++i) {
      __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(acc[i]) : "v"(w), "v"(x));
    }
  }
  CARAT_UNROLL_CHAINS
  for (int i = 1; i < kChains; ++i) acc[0] = _mm512_add_epi32(acc[0], acc[i]);
  *sink = _mm512_reduce_add_epi32(acc[0]);
  return steps * kChains * 64;
}

#elif defined(__aarch64__)

__attribute__((target("arch=armv8.2-a+dotprod"))) int64_t loop_neon_dot(int64_t steps,
                                                                        int32_t* sink) {
  int32x4_t acc[kChains];
  const int8x16_t w = vdupq_n_s8(static_cast<int8_t>(*sink & 7));
  const int8x16_t x = vdupq_n_s8(static_cast<int8_t>(*sink & 3));
  CARAT_UNROLL_CHAINS
  for (int i = 0; i < kChains; ++i) acc[i] = vdupq_n_s32(i);
  for (int64_t s = 0; s < steps; ++s) {
    CARAT_UNROLL_CHAINS
    for (int i = 0; i < kChains; ++i) {
      __asm__ volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc[i]) : "w"(w), "w"(x));
    }
  }
  CARAT_UNROLL_CHAINS
  for (int i = 1; i < kChains; ++i) acc[0] = vaddq_s32(acc[0], acc[i]);
  *sink = vaddvq_s32(acc[0]);
  return steps * kChains * 16;
}

#endif

// Portable: 4,096 products a round.
int64_t loop_portable(int64_t steps, int32_t* sink) {
  constexpr int kElements = 4096;
  static constexpr int kRoundsPerStep = 8;  // fewer rounds, since it is slower
  std::vector<int8_t> w(kElements), x(kElements);
  for (int i = 0; i < kElements; ++i) {
    w[static_cast<size_t>(i)] = static_cast<int8_t>((*sink + i) & 7);
    x[static_cast<size_t>(i)] = static_cast<int8_t>((*sink - i) & 3);
  }
  const int64_t rounds = std::max<int64_t>(1, steps * kRoundsPerStep / kElements);
  int32_t sum = 0;
  for (int64_t r = 0; r < rounds; ++r) {
    const int8_t* a = w.data();
    const int8_t* b = x.data();
    __asm__ volatile("" : "+r"(a), "+r"(b) : : "memory");
    int32_t dot = 0;
    for (int i = 0; i < kElements; ++i) dot += int32_t{a[i]} * b[i];
    sum ^= dot;
  }
  *sink = sum;
  return rounds * kElements;
}

MultiplyLoop loop_of(std::string_view isa) {
#if defined(__x86_64__)
  if (isa.starts_with("avx512")) return loop_avx512_vnni;
  if (isa.find("vnni") != std::string_view::npos) return loop_avx_vnni;
  if (isa.starts_with("avx2")) return loop_avx2;
#elif defined(__aarch64__)
  if (isa.starts_with("neon")) return loop_neon_dot;
#endif
  return loop_portable;
}

}  // namespace

double measure_multiply_rate(ThreadPool& pool, std::string_view isa, int passes) {
  constexpr int64_t kSteps = 300'000;
  constexpr size_t kLine = 64 / sizeof(int32_t);
  const MultiplyLoop loop = loop_of(isa);
  const auto threads = static_cast<size_t>(pool.size());
  std::vector<int32_t> sinks(threads * kLine, 1);
  std::vector<int64_t> done(threads * kLine);
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(pool.size(), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        const size_t at = static_cast<size_t>(t) * kLine;
        done[at] = loop(kSteps, &sinks[at]);
      }
    });
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    int64_t all = 0;
    for (size_t t = 0; t < threads; ++t) all += done[t * kLine];
    best = std::max(best, static_cast<double>(all) / std::max(time.count(), 1e-9));
  }
  return best;
}

}  // namespace carat::kernels
