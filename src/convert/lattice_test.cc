#include "convert/lattice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "convert/lattice_stats.h"
#include "convert/q4_0_fit.h"
#include "quant/q4_0.h"

namespace carat::convert {
namespace {

constexpr int kN = 32;

float bf16(float x) { return to_float(to_bf16(x)); }

// Empty if `block` gives w back on the grid, zeros of either sign equal; else which weight differs.
std::string difference(const float* w, const quant::BlockQ4_0& block, Grid grid = Grid::kBF16) {
  float value[kN];
  quant::decode_block_q4_0(block, value);
  for (int j = 0; j < kN; ++j) {
    if (round_to_grid(value[j], grid) != w[j]) {
      return "weight " + std::to_string(j) + ": " + std::to_string(w[j]) + " became " +
             std::to_string(value[j]);
    }
  }
  return "";
}

// Every way that could reproduce w, by trying all 63488 finite scales: the oracle of recover_block.
bool any_f16_reproduces(const float* w, Grid grid) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    if ((bits & 0x7c00u) == 0x7c00u) continue;
    const float d = to_float(F16{static_cast<uint16_t>(bits)});
    bool all = true;
    for (int j = 0; j < kN && all; ++j) {
      const float q = d == 0 ? 0.0f : std::nearbyint(w[j] / d);
      all = q >= -8 && q <= 7 && round_to_grid(d * q, grid) == w[j];
    }
    if (all) return true;
  }
  return false;
}

struct Master {
  float w[kN];
};

// Random weights of a random spread, some blocks sparse, flat or with one outlier.
Master random_master(Rng& rng, double scale) {
  Master m;
  const uint64_t kind = rng.below(8);
  for (float& w : m.w) {
    double x = rng.normal();
    if (kind == 0) x = 2 * rng.uniform() - 1;
    if (kind == 1) x = rng.below(4) == 0 ? x : 0.0;
    if (kind == 2) x = std::round(x);
    w = static_cast<float>(x * scale);
  }
  if (kind == 3) m.w[rng.below(kN)] *= 30.0f;
  return m;
}

// Signed extremum / -8 with a binary16 scale, exported as bfloat16. False if the scale overflows.
bool train_signed8(const Master& m, float* w, F16* d) {
  const quant::BlockQ4_0 block = quant::encode_block_q4_0(m.w);
  *d = block.d;
  if ((block.d.bits & 0x7c00u) == 0x7c00u) return false;
  quant::decode_block_q4_0(block, w);
  for (int j = 0; j < kN; ++j) w[j] = bf16(w[j]);
  return true;
}

// absmax / 7 with a bfloat16 scale and codes -7..7.
float train_absmax7(const Master& m, float* w) {
  float largest = 0;
  for (float x : m.w) largest = std::max(largest, std::fabs(x));
  const float d = bf16(largest / 7.0f);
  for (int j = 0; j < kN; ++j) {
    const float q = d == 0 ? 0.0f : std::clamp(std::nearbyint(m.w[j] / d), -7.0f, 7.0f);
    w[j] = bf16(d * q);
  }
  return d;
}

double random_scale(Rng& rng, int lo, int hi) {
  return std::ldexp(1.0 + rng.uniform(), lo + static_cast<int>(rng.below(hi - lo)));
}

TEST(Lattice, SignedExtremumRuleIsRecoveredAtEveryScale) {
  Rng rng(1);
  for (int i = 0; i < 400000; ++i) {
    const double scale = i % 2 ? random_scale(rng, -9, -3) : random_scale(rng, -27, 18);
    float w[kN];
    F16 d;
    if (!train_signed8(random_master(rng, scale), w, &d)) continue;
    Recovered r;
    ASSERT_TRUE(recover_block(w, Grid::kBF16, &r)) << i << " d=" << to_float(d);
    ASSERT_EQ(difference(w, r.block), "") << i;
  }
}

TEST(Lattice, AbsmaxRuleIsRecoveredWhereverBinary16HoldsTheScale) {
  Rng rng(2);
  int64_t out_of_range = 0;
  for (int i = 0; i < 400000; ++i) {
    const double scale = i % 2 ? random_scale(rng, -9, -3) : random_scale(rng, -24, 20);
    float w[kN];
    const float d = train_absmax7(random_master(rng, scale), w);
    Recovered r;
    if (!recover_block(w, Grid::kBF16, &r)) {
      ASSERT_NE(to_float(to_f16(d)), d) << i;
      ASSERT_EQ(find_wider_scale(w, Grid::kBF16), WiderScale::kBF16) << i << " d=" << d;
      ++out_of_range;
      continue;
    }
    ASSERT_EQ(difference(w, r.block), "") << i;
  }
  EXPECT_GT(out_of_range, 1000);
}

TEST(Lattice, BlocksThatPeakLowAreRecovered) {
  Rng rng(3);
  for (int i = 0; i < 300000; ++i) {
    const F16 d{static_cast<uint16_t>(rng.below(0x7c00u) | (rng.below(2) << 15))};
    const int peak = 1 + static_cast<int>(rng.below(7));
    float w[kN];
    for (float& x : w) {
      const int q = static_cast<int>(rng.below(2 * peak + 1)) - peak;
      x = bf16(to_float(d) * static_cast<float>(q));
    }
    Recovered r;
    ASSERT_TRUE(recover_block(w, Grid::kBF16, &r)) << i << " d bits " << d.bits;
    ASSERT_EQ(difference(w, r.block), "") << i;
  }
}

TEST(Lattice, EveryBinary16ScaleWithRandomCodesIsRecovered) {
  Rng rng(4);
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    if ((bits & 0x7c00u) == 0x7c00u) continue;
    const float d = to_float(F16{static_cast<uint16_t>(bits)});
    for (const Grid grid : {Grid::kBF16, Grid::kF16, Grid::kF32}) {
      if (grid == Grid::kF16 && std::fabs(d) * 8 > 65504.0f) continue;
      for (int repeat = 0; repeat < 3; ++repeat) {
        float w[kN];
        for (float& x : w) {
          const int q = static_cast<int>(rng.below(16)) - 8;
          x = round_to_grid(d * static_cast<float>(q), grid);
        }
        Recovered r;
        ASSERT_TRUE(recover_block(w, grid, &r)) << "d bits " << bits;
        ASSERT_EQ(difference(w, r.block, grid), "") << "d bits " << bits;
      }
    }
  }
}

// Blocks at the border between on and off the lattice: one weight moved by one unit in the last
// place. recover_block must agree with the search over all scales in both directions.
TEST(Lattice, AgreesWithASearchOverAllScales) {
  Rng rng(5);
  int on = 0, off = 0;
  for (int i = 0; i < 600; ++i) {
    float w[kN];
    F16 d;
    ASSERT_TRUE(train_signed8(random_master(rng, random_scale(rng, -12, 0)), w, &d));
    if (i % 3 == 1) train_absmax7(random_master(rng, random_scale(rng, -12, 0)), w);
    if (i % 3 == 2) {  // few codes: many hypotheses survive long
      for (float& x : w) x = bf16(to_float(d) * static_cast<float>(rng.below(3)));
    }
    float& moved = w[rng.below(kN)];
    const int step = static_cast<int>(rng.below(3)) - 1;
    if (moved != 0) moved = std::bit_cast<float>(std::bit_cast<uint32_t>(moved) + (step << 16));
    Recovered r;
    const bool found = recover_block(w, Grid::kBF16, &r);
    ASSERT_EQ(found, any_f16_reproduces(w, Grid::kBF16)) << i;
    (found ? on : off)++;
    if (found) {
      ASSERT_EQ(difference(w, r.block), "");
    }
  }
  EXPECT_GT(on, 100);
  EXPECT_GT(off, 100);
}

TEST(Lattice, GaussianWeightsAreOffTheLattice) {
  Rng rng(6);
  for (int i = 0; i < 20000; ++i) {
    float w[kN];
    for (float& x : w) x = bf16(static_cast<float>(rng.normal() * 0.02));
    Recovered r;
    ASSERT_FALSE(recover_block(w, Grid::kBF16, &r));
    ASSERT_EQ(r.rule, Rule::kNone);
    ASSERT_EQ(find_wider_scale(w, Grid::kBF16), WiderScale::kNone);
  }
}

TEST(Lattice, BothExtremesCannotBeEightSteps) {
  float w[kN] = {};
  for (int j = 0; j < kN; ++j) w[j] = static_cast<float>(j % 15 - 7);
  w[0] = 8;
  w[1] = -8;
  Recovered r;
  EXPECT_FALSE(recover_block(w, Grid::kBF16, &r));
  w[1] = -7;
  ASSERT_TRUE(recover_block(w, Grid::kBF16, &r));
  EXPECT_EQ(to_float(r.block.d), -1.0f);
  EXPECT_EQ(quant::code_of(r.block, 0), 0);
}

TEST(Lattice, PrefersTheCanonicalBlock) {
  // Only even codes: 4 steps of 0.5 are 8 steps of 0.25.
  float w[kN] = {};
  for (int j = 0; j < kN; ++j) w[j] = 0.5f * static_cast<float>(j % 8 - 4);
  Recovered r;
  ASSERT_TRUE(recover_block(w, Grid::kBF16, &r));
  EXPECT_EQ(r.rule, Rule::kSigned8);
  EXPECT_EQ(to_float(r.block.d), 0.25f);
  EXPECT_TRUE(r.scale_exact_in_bf16);
  w[4] = 2.0f;  // now both extremes: 4 steps stay
  ASSERT_TRUE(recover_block(w, Grid::kBF16, &r));
  EXPECT_EQ(r.rule, Rule::kOther);
  EXPECT_EQ(r.peak, 4);
  EXPECT_EQ(difference(w, r.block), "");
}

// A scale that both 16-bit types hold makes llama.cpp's quantizer find the very same block.
TEST(Lattice, ScalesExactInBothTypesGiveTheReferenceBlock) {
  Rng rng(7);
  for (int i = 0; i < 20000; ++i) {
    const Master m = random_master(rng, random_scale(rng, -9, -3));
    float w[kN];
    F16 d16;
    ASSERT_TRUE(train_signed8(m, w, &d16));
    const float d = bf16(to_float(d16));
    const quant::BlockQ4_0 trained = quant::encode_block_q4_0(m.w);
    for (int j = 0; j < kN; ++j) {
      w[j] = bf16(d * static_cast<float>(quant::code_of(trained, j) - 8));
    }
    const quant::BlockQ4_0 reference = quant::encode_block_q4_0(w);
    Recovered r;
    ASSERT_TRUE(recover_block(w, Grid::kBF16, &r));
    if (r.rule == Rule::kZero) continue;
    ASSERT_EQ(r.block.d.bits, reference.d.bits) << i;
    for (int j = 0; j < 16; ++j) ASSERT_EQ(r.block.qs[j], reference.qs[j]) << i;
  }
}

TEST(Lattice, ZerosOfEitherSign) {
  float w[kN] = {};
  for (int j = 0; j < kN; j += 3) w[j] = -0.0f;
  Recovered r;
  ASSERT_TRUE(recover_block(w, Grid::kBF16, &r));
  EXPECT_EQ(r.rule, Rule::kZero);
  EXPECT_EQ(r.block.d.bits, 0);
  for (int j = 0; j < kN; ++j) EXPECT_EQ(quant::code_of(r.block, j), 8);
  LatticeStats stats;
  std::byte out[18];
  recover_blocks(w, 0, 1, Grid::kBF16, out, stats);
  EXPECT_EQ(stats.sign_changed_zeros, 11);
  EXPECT_EQ(stats.weights_bit_exact, kN);
  EXPECT_EQ(stats.zero, 1);
}

TEST(Lattice, WeightsThatAreNotFiniteAreRefused) {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    float w[kN] = {};
    w[5] = bad;
    w[6] = 1;
    Recovered r;
    EXPECT_FALSE(recover_block(w, Grid::kBF16, &r));
    LatticeStats stats;
    std::byte out[18];
    recover_blocks(w, 0, 1, Grid::kBF16, out, stats);
    EXPECT_EQ(stats.refused, 1);
    EXPECT_EQ(stats.weights_bit_exact, 0);
  }
}

TEST(Lattice, GridsAreTold) {
  const float a[] = {0.5f, -3.0f};
  EXPECT_EQ(grid_of(a, 2), Grid::kBF16);
  const float b[] = {0.5f, 1.0f + 0x1p-10f};
  EXPECT_EQ(grid_of(b, 2), Grid::kF16);
  const float c[] = {0.5f, 1.0f + 0x1p-12f};
  EXPECT_EQ(grid_of(c, 2), Grid::kF32);
}

TEST(Fit, NeverWorseThanTheReferenceRule) {
  Rng rng(8);
  double reference_sum = 0, fitted_sum = 0;
  for (int i = 0; i < 40000; ++i) {
    Master m = random_master(rng, i % 2 ? random_scale(rng, -9, -3) : random_scale(rng, -30, 10));
    if (i % 3 == 0) {
      for (float& x : m.w) x = bf16(x);
    }
    quant::BlockQ4_0 block;
    ASSERT_TRUE(fit_block_q4_0(m.w, &block));
    const double reference = squared_error(m.w, quant::encode_block_q4_0(m.w));
    const double fitted = squared_error(m.w, block);
    ASSERT_LE(fitted, reference) << i;
    if (reference > 0) {
      reference_sum += 1;
      fitted_sum += fitted / reference;
    }
  }
  EXPECT_LT(fitted_sum, 0.92 * reference_sum);
}

TEST(Fit, RefusesWhatQ4_0CannotHold) {
  float w[kN] = {};
  quant::BlockQ4_0 block;
  w[0] = 1e6f;
  EXPECT_FALSE(fit_block_q4_0(w, &block));
  w[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(fit_block_q4_0(w, &block));
}

TEST(Stats, CountsAddUp) {
  Rng rng(9);
  constexpr int kBlocks = 400;
  std::vector<float> w(kBlocks * kN);
  for (int b = 0; b < kBlocks; ++b) {
    F16 d;
    const Master m = random_master(rng, 0.02);
    if (b % 4 == 0) {
      ASSERT_TRUE(train_signed8(m, &w[b * kN], &d));
    } else if (b % 4 == 3) {
      for (int j = 0; j < kN; ++j) w[b * kN + j] = bf16(static_cast<float>(rng.normal() * 0.02));
    } else {
      train_absmax7(m, &w[b * kN]);
    }
  }
  std::vector<std::byte> out(kBlocks * 18);
  LatticeStats whole;
  recover_blocks(w.data(), 0, kBlocks, Grid::kBF16, out.data(), whole);
  EXPECT_EQ(whole.blocks, kBlocks);
  EXPECT_EQ(whole.blocks_on_lattice, 300);
  EXPECT_EQ(whole.zero + whole.signed8 + whole.absmax7 + whole.other_peak, 300);
  EXPECT_EQ(whole.weights, kBlocks * kN);
  int64_t exact = 0, codes = 0;
  for (int b = 0; b < kBlocks; ++b) {
    float value[kN];
    quant::decode_q4_0(out.data() + b * 18, value, kN);
    for (int j = 0; j < kN; ++j) exact += bf16(value[j]) == w[b * kN + j];
  }
  for (int64_t c : whole.codes) codes += c;
  EXPECT_EQ(whole.weights_bit_exact, exact);
  EXPECT_EQ(codes, kBlocks * kN);
  EXPECT_EQ(whole.naive_weights, 25 * kN);
  EXPECT_LT(whole.naive_weights_bit_exact, whole.naive_weights);

  LatticeStats parts;
  for (int b = 0; b < kBlocks; b += 100) {
    LatticeStats part;
    recover_blocks(&w[b * kN], b, 100, Grid::kBF16, out.data() + b * 18, part);
    parts.add(part);
  }
  EXPECT_EQ(to_json(parts)["codes"], to_json(whole)["codes"]);
  EXPECT_EQ(parts.naive_weights_bit_exact, whole.naive_weights_bit_exact);
}

}  // namespace
}  // namespace carat::convert
