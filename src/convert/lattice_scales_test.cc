// Scales that are not binary16 numbers: every block for which some binary16 number does must be
// found, and only those. The oracle tries all 63488 of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "convert/lattice.h"
#include "convert/lattice_stats.h"
#include "quant/q4_0.h"

namespace carat::convert {
namespace {

constexpr int kN = 32;

// Whether some binary16 scale reproduces w with codes -8..7. In double every quotient that is near
// a whole number of steps rounds to it.
bool any_scale_reproduces(const float* w, Grid grid) {
  int first = 0;  // a weight that is not zero decides quickly
  while (first < kN - 1 && w[first] == 0) ++first;
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    if ((bits & 0x7c00u) == 0x7c00u) continue;
    const float d = to_float(F16{static_cast<uint16_t>(bits)});
    bool all = true;
    for (int j = 0; j < kN && all; ++j) {
      const float x = w[(first + j) % kN];
      const double q = d == 0 ? 0.0 : std::nearbyint(static_cast<double>(x) / d);
      all = q >= -8 && q <= 7 && round_to_grid(static_cast<float>(q) * d, grid) == x;
    }
    if (all) return true;
  }
  return false;
}

enum class Kind { kSigned8, kAbsmax7, kAbsmax7Half, kLowPeak, kSparse };

// A block d * q of a float scale, as training leaves it on the grid.
void make_block(Rng& rng, Kind kind, double spread, Grid grid, float* w) {
  float master[kN], extremum = 0;
  for (float& x : master) {
    x = static_cast<float>(rng.normal() * spread);
    if (kind == Kind::kSparse && rng.below(6) != 0) x = 0;
    if (std::fabs(x) > std::fabs(extremum)) extremum = x;
  }
  float d = extremum / -8.0f;
  int lo = -8, hi = 7;
  if (kind == Kind::kAbsmax7) d = std::fabs(extremum) / 7.0f, lo = -7;
  if (kind == Kind::kAbsmax7Half) d = std::fabs(extremum) / 7.5f;
  if (kind == Kind::kLowPeak) {
    hi = 1 + static_cast<int>(rng.below(6));
    lo = -hi;
  }
  for (int j = 0; j < kN; ++j) {
    const float q = d == 0 ? 0.0f : std::nearbyint(master[j] / d);
    w[j] = round_to_grid(d * std::clamp(q, static_cast<float>(lo), static_cast<float>(hi)), grid);
  }
}

TEST(FloatScales, FoundExactlyWhereSomeBinary16ScaleDoes) {
  Rng rng(11);
  int64_t found = 0, missing = 0;
  for (const Kind kind :
       {Kind::kSigned8, Kind::kAbsmax7, Kind::kAbsmax7Half, Kind::kLowPeak, Kind::kSparse}) {
    for (const Grid grid : {Grid::kBF16, Grid::kF16, Grid::kF32}) {
      // Ordinary, where binary16 becomes subnormal, deep in that, and near its largest number.
      for (const double spread : {0.02, 0x1p-12, 0x1p-18, 0x1p-21, 0x1p16}) {
        for (int i = 0; i < 12; ++i) {
          float w[kN];
          make_block(rng, kind, spread, grid, w);
          if (std::any_of(w, w + kN, [](float x) { return !std::isfinite(x); })) continue;
          Recovered r;
          const bool on = recover_block(w, grid, &r);
          ASSERT_EQ(on, any_scale_reproduces(w, grid))
              << "kind " << static_cast<int>(kind) << " grid " << static_cast<int>(grid)
              << " spread " << spread << " block " << i;
          (on ? found : missing)++;
          if (!on) {
            // The float scale that made it is there to be found, unless a grid of few subnormal
            // steps hides the codes.
            if (grid != Grid::kF16 || spread > 0x1p-16) {
              EXPECT_NE(find_wider_scale(w, grid), WiderScale::kNone)
                  << "kind " << static_cast<int>(kind) << " grid " << static_cast<int>(grid)
                  << " spread " << spread;
            }
            continue;
          }
          float value[kN];
          quant::decode_block_q4_0(r.block, value);
          for (int j = 0; j < kN; ++j) ASSERT_EQ(round_to_grid(value[j], grid), w[j]);
        }
      }
    }
  }
  EXPECT_GT(found, 200);
  EXPECT_GT(missing, 100);
}

// On bfloat16, the interval of a full block is nearly always wide enough for a binary16 number.
TEST(FloatScales, NearlyAlwaysDoOnBfloat16) {
  Rng rng(12);
  int64_t on = 0;
  constexpr int kBlocks = 20000;
  for (int i = 0; i < kBlocks; ++i) {
    float w[kN];
    make_block(rng, i % 2 ? Kind::kSigned8 : Kind::kAbsmax7, 0.02, Grid::kBF16, w);
    Recovered r;
    on += recover_block(w, Grid::kBF16, &r);
  }
  EXPECT_GT(on, kBlocks * 85 / 100);
}

TEST(FloatScales, ChangedSignsOfZerosAreCounted) {
  float w[kN];
  for (int j = 0; j < kN; ++j) w[j] = 0.25f * static_cast<float>(j % 16 - 8);  // d = 0.25
  w[8] = -0.0f;  // a zero code times a positive scale is +0
  LatticeStats stats;
  std::byte block[18];
  recover_blocks(w, 0, 1, Grid::kBF16, block, stats);
  EXPECT_EQ(stats.blocks_on_lattice, 1);
  EXPECT_EQ(stats.weights_bit_exact, kN);
  EXPECT_EQ(stats.sign_changed_zeros, 1);
  for (float& x : w) x = -x;  // d = -0.25: now +0 changes, and the second zero is -0 already
  stats = {};
  recover_blocks(w, 0, 1, Grid::kBF16, block, stats);
  EXPECT_EQ(stats.sign_changed_zeros, 1);
}

}  // namespace
}  // namespace carat::convert
