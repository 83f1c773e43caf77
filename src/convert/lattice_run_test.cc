#include "convert/lattice_run.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include "base/half.h"
#include "base/json.h"
#include "base/rng.h"
#include "convert/lattice_isa.h"
#include "convert/lattice_stats.h"
#include "kernels/cpu/dispatch.h"
#include "quant/q4_0.h"

namespace carat::convert {
namespace {

constexpr int kN = quant::kBlock;

// A block of bfloat16 weights of one of many kinds: on the lattice by each rule and at every scale,
// peaks below 8, zeros of either sign, +8 and -8 at once, ordinary weights, numbers without a code.
void random_block(Rng& rng, uint16_t* out) {
  const uint64_t kind = rng.below(10);
  const int exponent = static_cast<int>(rng.below(kind == 9 ? 60 : 14));
  F16 d{static_cast<uint16_t>(rng.below(0x7c00u) | (rng.below(2) << 15))};
  if (kind < 3) d = to_f16(std::ldexp(1.0f + static_cast<float>(rng.uniform()), -exponent));
  const float step = kind == 1 ? to_float(to_bf16(to_float(d))) : to_float(d);
  const int peak = kind < 4 ? 8 : 1 + static_cast<int>(rng.below(8));
  const int highest = kind == 3 ? 8 : 7;
  const bool negate = rng.below(2) != 0;
  for (int j = 0; j < kN; ++j) {
    int q = static_cast<int>(rng.below(static_cast<uint64_t>(2 * peak + 1))) - peak;
    if (q > highest) q = highest;
    if (rng.below(8) == 0) q = 0;
    float w = step * static_cast<float>(negate ? -q : q);
    if (kind >= 8) w = std::ldexp(static_cast<float>(rng.normal()), 20 - exponent);
    if (q == 0 && kind < 8) w = rng.below(2) != 0 ? 0.0f : -0.0f;
    out[j] = to_bf16(w).bits;
  }
  if (kind == 7) out[rng.below(kN)] = static_cast<uint16_t>(rng.below(0x10000));
  if (kind == 6 && rng.below(4) == 0) std::memset(out, 0, 2 * kN);
}

TEST(LatticeRun, EveryInstructionSetGivesWhatOneBlockAfterTheOtherGives) {
  constexpr int64_t kBlocks = 64 * 1024 + 5;
  Rng rng(7);
  std::vector<uint16_t> w(static_cast<size_t>(kBlocks * kN));
  for (int64_t b = 0; b < kBlocks; ++b) random_block(rng, &w[static_cast<size_t>(b * kN)]);
  const auto* bytes = reinterpret_cast<const std::byte*>(w.data());
  const auto n_bytes = static_cast<size_t>(kBlocks) * sizeof(quant::BlockQ4_0);

  std::vector<float> values(w.size());
  for (size_t i = 0; i < w.size(); ++i) values[i] = to_float(BF16{w[i]});
  std::vector<std::byte> expected(n_bytes);
  LatticeStats reference;
  recover_blocks(values.data(), 3, kBlocks, Grid::kBF16, expected.data(), reference);
  LatticeStats judged;
  recover_blocks(values.data(), 3, kBlocks, Grid::kBF16, nullptr, judged);
  ASSERT_GT(reference.signed8, 1000);
  ASSERT_GT(reference.absmax7, 1000);
  ASSERT_GT(reference.other_peak, 1000);
  ASSERT_GT(reference.zero, 100);
  ASSERT_GT(reference.refused, 100);
  ASSERT_GT(reference.blocks - reference.blocks_on_lattice, 1000);

  std::vector<LatticeKernel> kernels = {{"none", nullptr}};
  for (const LatticeKernel& k : lattice_kernels()) kernels.push_back(k);
  for (const LatticeKernel& k : kernels) {
    std::vector<std::byte> out(n_bytes);
    LatticeStats stats;
    recover_bf16_blocks(bytes, 3, kBlocks, out.data(), stats, k.run);
    EXPECT_TRUE(out == expected) << k.isa;
    EXPECT_EQ(to_json(stats), to_json(reference)) << k.isa;
    LatticeStats without;
    recover_bf16_blocks(bytes, 3, kBlocks, nullptr, without, k.run);
    EXPECT_EQ(to_json(without), to_json(judged)) << k.isa;
  }
}

// Otherwise the test above would compare nothing.
TEST(LatticeRun, UsualBlocksAreNotLeftToTheSlowWay) {
  Rng rng(8);
  for (const LatticeKernel& k : lattice_kernels()) {
    for (const bool absmax : {false, true}) {
      int64_t done = 0;
      for (int r = 0; r < 1000; ++r) {
        uint16_t w[kRunBlocks][kN];
        for (auto& block : w) {
          float x[kN], largest = 0;
          for (float& v : x)
            largest = std::max(largest, std::fabs(v = static_cast<float>(rng.normal())));
          const float d = to_float(to_bf16(largest / 7));
          const quant::BlockQ4_0 q4 = quant::encode_block_q4_0(x);
          for (int j = 0; j < kN; ++j) {
            const float v = absmax ? d * std::nearbyint(x[j] / d)
                                   : to_float(q4.d) * static_cast<float>(quant::code_of(q4, j) - 8);
            block[j] = to_bf16(v).bits;
          }
        }
        std::byte out[kRunBlocks * sizeof(quant::BlockQ4_0)];
        RunCounts counts;
        done += std::popcount(k.run(reinterpret_cast<const std::byte*>(w), out, counts));
        EXPECT_EQ(absmax ? counts.signed8 : counts.absmax7, 0);
      }
      EXPECT_GE(done, 1000 * kRunBlocks * 995 / 1000) << k.isa << ' ' << absmax;
    }
  }
}

TEST(LatticeRun, ALowerInstructionSetCanBeChosen) {
  const std::string_view best = kernels::supported_kernels().front()->isa;
  EXPECT_EQ(best_recover_run(), recover_run_within(best));
  EXPECT_EQ(recover_run_within("generic"), nullptr);
  for (const LatticeKernel& k : lattice_kernels()) {
    EXPECT_EQ(recover_run_within(k.isa), k.run) << k.isa;
    use_lattice_isa(k.isa);
    EXPECT_EQ(best_recover_run(), k.run) << k.isa;
  }
  use_lattice_isa("generic");
  EXPECT_EQ(best_recover_run(), nullptr);
  use_lattice_isa(best);
}

}  // namespace
}  // namespace carat::convert
