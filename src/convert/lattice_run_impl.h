// recover_block (lattice.cc) for 16 blocks, over the vectors of one instruction set. Included only
// by the file of that instruction set, so everything here has internal linkage.
//
// V offers kLanes, Floats and Ints (GCC vectors of kLanes), and:
//   Ints load(p)            bfloat16 numbers as the bits of floats
//   max, min                of vectors; x where x > y (x < y), else y
//   largest, highest, lowest  over the lanes
//   round_and_invert(x, q, inverse)  q = x to the nearest integer, inverse = 1.0f / q; 0 <= x < 8.5
//   uint32_t signs(x)       the sign bits of the lanes
//   bool any(x)             whether a lane is not zero
//   store_codes(codes, p)   32 codes 0..15 as the 16 bytes of a Q4_0 block
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "convert/lattice_run.h"

namespace carat::convert {
namespace {

#define CARAT_RUN_INLINE __attribute__((always_inline)) inline

CARAT_RUN_INLINE float run_float(uint32_t u) {
  float x;
  std::memcpy(&x, &u, sizeof(x));
  return x;
}
CARAT_RUN_INLINE uint32_t run_bits(float x) {
  uint32_t u;
  std::memcpy(&u, &x, sizeof(u));
  return u;
}

// The steps go over all 16 blocks before the next one, so that none waits for another's result and
// what is a few numbers a block is a vector too. There is no branch on weights but for the peak.
template <class V>
struct RecoverBlocks {
  using Floats = typename V::Floats;
  using Ints = typename V::Ints;
  static constexpr int kParts = 32 / V::kLanes;
  static constexpr int32_t kSignBit = static_cast<int32_t>(0x80000000u);

  float extremum[kRunBlocks];  // its magnitude
  uint32_t d_sign[kRunBlocks];
  int32_t steps[kRunBlocks];  // of the extremum; 0: not the usual kind
  float lo[kRunBlocks], hi[kRunBlocks];
  float shared[kRunBlocks], start[kRunBlocks];  // scales to try, 0: none
  float d[kRunBlocks];
  Floats q[kRunBlocks][kParts];  // steps of |w|; of zeros undefined

  static CARAT_RUN_INLINE Ints load(const std::byte* w, int part) {
    return V::load(w + 2 * V::kLanes * part);
  }

  CARAT_RUN_INLINE void find_extremum(const std::byte* w, int i) {
    Ints most = load(w, 0) & 0x7fffffff;
    for (int p = 1; p < kParts; ++p) most = V::max(load(w, p) & 0x7fffffff, most);
    extremum[i] = run_float(static_cast<uint32_t>(V::largest(most)));
  }

  // In place of zeros stands the extremum: its interval is no news, while the edges of a zero would
  // be subnormal numbers, whose products take processors a hundred times as long.
  CARAT_RUN_INLINE void bracket(const std::byte* w, int i, float scale) {
    const auto largest = static_cast<int32_t>(run_bits(extremum[i]));
    Floats low = Floats{}, high = Floats{} + __builtin_inff();
    for (int p = 0; p < kParts; ++p) {
      const Ints magnitude = load(w, p) & 0x7fffffff;
      const Ints stand_in = magnitude | ((magnitude == 0) & largest);
      Floats inverse;
      V::round_and_invert((Floats)stand_in * scale, q[i][p], inverse);
      low = V::max((Floats)(stand_in - 0x8000) * inverse, low);
      high = V::min((Floats)(stand_in + 0x8000) * inverse, high);
    }
    lo[i] = V::highest(low);
    hi[i] = V::lowest(high);
  }

  // Whether no code would have to be +8; the sign of d with which the extremum has -8.
  CARAT_RUN_INLINE bool peaks_agree(const std::byte* w, int i) {
    uint32_t positive = 0, negative = 0;
    for (int p = 0; p < kParts; ++p) {
      const Ints bits = load(w, p);
      const Ints peak = (q[i][p] == 8.0f) & ((bits & 0x7fffffff) != 0);
      positive |= V::signs(peak & ~bits);
      negative |= V::signs(peak & bits);
    }
    d_sign[i] = positive != 0 ? 0x80000000u : 0;
    return positive == 0 || negative == 0;
  }

  CARAT_RUN_INLINE bool is_empty(int i) const {
    return !(lo[i] * (1.0f - 0x1p-22f) <= hi[i] * (1.0f + 0x1p-22f));
  }

  CARAT_RUN_INLINE void find_peaks(const std::byte* w) {
    float scale[kRunBlocks], scale7[kRunBlocks];
    for (int i = 0; i < kRunBlocks; ++i) scale[i] = 8.0f / extremum[i];
    for (int i = 0; i < kRunBlocks; ++i) scale7[i] = 7.0f / extremum[i];
    for (int i = 0; i < kRunBlocks; ++i) {
      const std::byte* block = w + 64 * i;
      bracket(block, i, scale[i]);
      steps[i] = 8;
      if (!is_empty(i) && peaks_agree(block, i)) continue;
      bracket(block, i, scale7[i]);
      d_sign[i] = 0;
      steps[i] = is_empty(i) ? 0 : 7;
    }
    // Too small, or not finite: the bracket says nothing.
    for (int i = 0; i < kRunBlocks; ++i) {
      steps[i] = extremum[i] >= 0x1p-14f && extremum[i] <= 0x1p127f ? steps[i] : 0;
    }
  }

  // The first two scales that find_scale tries, where they are in the bracket.
  CARAT_RUN_INLINE void find_scales() {
    for (int i = 0; i < kRunBlocks; ++i) {
      const float widened_lo = lo[i] * (1.0f - 0x1p-22f), widened_hi = hi[i] * (1.0f + 0x1p-22f);
      const float from = widened_lo > 0x1p-24f ? widened_lo : 0x1p-24f;
      const float to = widened_hi < 65504.0f ? widened_hi : 65504.0f;
      const float middle = from + 0.5f * (to - from);
      const uint32_t u = run_bits(middle);
      const float near = run_float((u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u);
      // Below, binary16 numbers are subnormal.
      const bool usual = from <= to && middle >= 0x1p-14f;
      const float half = run_float((u + 0xfffu + ((u >> 13) & 1u)) & 0xffffe000u);
      shared[i] = usual && near >= from && near <= to ? near : 0.0f;
      start[i] = usual && half >= from && half <= to ? half : 0.0f;
    }
  }

  // Which of the two gives all weights back.
  CARAT_RUN_INLINE void choose_scale(const std::byte* w, int i) {
    Ints first = Ints{}, second = Ints{};
    for (int p = 0; p < kParts; ++p) {
      const Ints magnitude = load(w, p) & 0x7fffffff;
      const Ints nonzero = magnitude != 0;
      first |= (rounded(q[i][p] * shared[i]) ^ magnitude) & nonzero;
      second |= (rounded(q[i][p] * start[i]) ^ magnitude) & nonzero;
    }
    const float otherwise = V::any(second) ? 0.0f : start[i];
    d[i] = V::any(first) ? otherwise : shared[i];
  }
  static CARAT_RUN_INLINE Ints rounded(Floats x) {
    return ((Ints)x + 0x7fff + (((Ints)x >> 16) & 1)) & -0x10000;
  }

  CARAT_RUN_INLINE void write(const std::byte* w, int i, std::byte* out, RunCounts& counts) const {
    const auto flip = static_cast<int32_t>(d_sign[i]);
    Ints codes[kParts];
    int changed = 0;
    for (int p = 0; p < kParts; ++p) {
      const Ints bits = load(w, p);
      const Ints n = __builtin_convertvector(q[i][p], Ints) & ((bits & 0x7fffffff) != 0);
      const Ints negative = (bits ^ flip) >> 31;
      codes[p] = ((n ^ negative) - negative) + 8;
      changed += __builtin_popcount(V::signs(bits == (flip ^ kSignBit)));
    }
    // A number that binary16 holds, and that is not subnormal there.
    const auto half =
        static_cast<uint16_t>(((run_bits(d[i]) - 0x38000000u) >> 13) | (d_sign[i] >> 16));
    std::memcpy(out, &half, sizeof(half));
    V::store_codes(codes, out + sizeof(half));
    counts.sign_changed_zeros += changed;
    counts.scale_exact_in_bf16 += (run_bits(d[i]) & 0xffffu) == 0;
    (steps[i] == 8 ? counts.signed8 : counts.absmax7) += 1;
  }

  CARAT_RUN_INLINE uint32_t run(const std::byte* w, std::byte* out, RunCounts& counts) {
    for (int i = 0; i < kRunBlocks; ++i) find_extremum(w + 64 * i, i);
    find_peaks(w);
    find_scales();
    for (int i = 0; i < kRunBlocks; ++i) choose_scale(w + 64 * i, i);
    uint32_t done = 0;
    for (int i = 0; i < kRunBlocks; ++i) {
      if (steps[i] == 0 || d[i] == 0.0f) continue;
      write(w + 64 * i, i, out + 18 * i, counts);
      done |= uint32_t{1} << i;
    }
    return done;
  }
};

template <class V>
uint32_t recover_run_of(const std::byte* w, std::byte* out, RunCounts& counts) {
  RecoverBlocks<V> blocks;
  return blocks.run(w, out, counts);
}

}  // namespace
}  // namespace carat::convert
