#include "convert/scale_shift.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "quant/q4_0.h"

namespace carat::convert {
namespace {

using Kind = UnshiftedGroup::Kind;

struct Exported {
  std::vector<float> weights;   // bf16, on the Q4_0 lattice
  std::vector<int8_t> codes;    // of the export
  std::vector<float> scales;    // bf16, too large
  std::vector<int8_t> lattice;  // the codes before: -8..7 with d
  std::vector<float> d;
};

// Google's training rule, then an observer that takes largest magnitude / 7.5, in bfloat16.
Exported exported(int64_t n_groups, uint64_t seed) {
  Rng rng(seed);
  Exported e;
  for (int64_t g = 0; g < n_groups; ++g) {
    float w[32];
    for (float& x : w) x = static_cast<float>(rng.normal() * 0.02);
    const quant::BlockQ4_0 block = quant::encode_block_q4_0(w);
    float largest = 0;
    for (int i = 0; i < 32; ++i) {
      const int code = quant::code_of(block, i) - 8;
      e.lattice.push_back(static_cast<int8_t>(code));
      e.weights.push_back(to_float(to_bf16(to_float(block.d) * static_cast<float>(code))));
      largest = std::max(largest, std::fabs(e.weights.back()));
    }
    const float scale = to_float(to_bf16(largest / 7.5f));
    for (int i = 0; i < 32; ++i) {
      const float q =
          std::nearbyint(to_float(to_bf16(e.weights[e.weights.size() - 32 + size_t(i)] / scale)));
      e.codes.push_back(static_cast<int8_t>(std::clamp(q, -8.0f, 7.0f)));
    }
    e.scales.push_back(scale);
    e.d.push_back(to_float(block.d));
  }
  return e;
}

TEST(ScaleShift, ProvenCodesAreThoseOfTheLattice) {
  constexpr int64_t kGroups = 4000;
  const Exported e = exported(kGroups, 11);
  int64_t proven = 0, ambiguous = 0;
  for (int64_t g = 0; g < kGroups; ++g) {
    const UnshiftedGroup u = undo_shift(&e.codes[size_t(32 * g)], e.scales[size_t(g)]);
    if (u.kind == Kind::kAmbiguous) {
      ++ambiguous;
      continue;
    }
    ASSERT_EQ(u.kind, Kind::kProven);
    ++proven;
    EXPECT_TRUE(std::equal(u.codes.begin(), u.codes.end(), e.lattice.begin() + 32 * g)) << g;
    EXPECT_NEAR(u.d / e.d[size_t(g)], 1.0f, 1.0f / 128);
  }
  EXPECT_GT(ambiguous, 0);
  EXPECT_GT(proven, kGroups / 2);
}

TEST(ScaleShift, CountsAndComparesWhatIsThere) {
  constexpr int64_t kGroups = 2000;
  const Exported e = exported(kGroups, 12);
  ShiftStats stats;
  count_groups(e.codes.data(), e.scales.data(), kGroups, stats);
  EXPECT_EQ(stats.groups, kGroups);
  EXPECT_EQ(stats.with_minus8 + stats.single_peak + stats.ambiguous, kGroups);
  EXPECT_GT(stats.with_minus8, kGroups / 3);
  EXPECT_TRUE(stats.follows_min_max());

  ShiftPairs pairs;
  compare_groups(e.codes.data(), e.scales.data(), e.weights.data(), kGroups, pairs);
  EXPECT_TRUE(pairs.all_shifted())
      << pairs.shifted << " " << pairs.as_stored << " " << pairs.neither;
  EXPECT_EQ(pairs.proven, stats.proven());
  EXPECT_EQ(pairs.proven_right, pairs.proven);
}

// The same weights with right scales are not taken for shifted ones.
TEST(ScaleShift, RightScalesAreToldApart) {
  const Exported e = exported(500, 13);
  ShiftStats stats;
  count_groups(e.lattice.data(), e.d.data(), 500, stats);
  EXPECT_GT(stats.negative_scales, 0);
  EXPECT_FALSE(stats.follows_min_max());
  ShiftPairs pairs;
  compare_groups(e.lattice.data(), e.d.data(), e.weights.data(), 500, pairs);
  EXPECT_EQ(pairs.as_stored, 500);
  EXPECT_EQ(pairs.shifted, 0);
}

TEST(ScaleShift, OtherGroupsStayAsTheyAre) {
  std::vector<int8_t> codes(32, 0);
  EXPECT_EQ(undo_shift(codes.data(), 0.5f).kind, Kind::kZero);
  codes[3] = 6;
  const UnshiftedGroup foreign = undo_shift(codes.data(), 0.5f);
  EXPECT_EQ(foreign.kind, Kind::kForeign);
  EXPECT_EQ(foreign.d, 0.5f);
  EXPECT_EQ(foreign.codes[3], 6);
  ShiftStats stats;
  const float scale = 0.5f;
  count_groups(codes.data(), &scale, 1, stats);
  EXPECT_EQ(stats.foreign, 1);
  EXPECT_FALSE(stats.follows_min_max());
  std::vector<float> weights(32, 0.0f);
  weights[3] = 17.0f;
  ShiftPairs pairs;
  compare_groups(codes.data(), &scale, weights.data(), 1, pairs);
  EXPECT_EQ(pairs.neither, 1);
}

}  // namespace
}  // namespace carat::convert
