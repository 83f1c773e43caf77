#include "quant/grid.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/rng.h"
#include "quant/scheme.h"

namespace carat::quant {
namespace {

std::vector<DType> types_with_grid() {
  std::vector<DType> types;
  for (const DTypeInfo& i : all_dtypes()) {
    if (has_grid(i.dtype)) types.push_back(i.dtype);
  }
  return types;
}

std::vector<std::byte> random_block(DType t, Rng& rng) {
  const int n = info(t).block_elements;
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = static_cast<float>(rng.normal());
  std::vector<std::byte> block(static_cast<size_t>(info(t).block_bytes));
  encode_row(t, x.data(), block.data(), n);
  return block;
}

uint32_t bits(float x) {
  uint32_t b;
  std::memcpy(&b, &x, 4);
  return x == 0 ? 0 : b;  // zeros of either sign
}

TEST(Grid, CoversEveryTypeThatIsComputedWithInBlocks) {
  EXPECT_EQ(types_with_grid().size(), 12u);
  for (const DTypeInfo& i : all_dtypes()) {
    EXPECT_EQ(has_grid(i.dtype), i.computable && i.block_elements > 1 && i.gguf_id >= 0) << i.name;
  }
}

TEST(Grid, ValuesAreThoseOfDecoding) {
  Rng rng(3);
  for (const DType t : types_with_grid()) {
    for (int round = 0; round < 50; ++round) {
      const auto block = random_block(t, rng);
      float decoded[kSuperBlock];
      const int n = info(t).block_elements;
      decode_row(t, block.data(), decoded, n);
      Grid grid;
      read_grid(t, block.data(), grid);
      int8_t codes[kSuperBlock];
      read_codes(t, block.data(), codes);
      ASSERT_EQ(grid.elements, n);
      for (int e = 0; e < n; ++e) {
        ASSERT_GE(codes[e], grid.lowest);
        ASSERT_LE(codes[e], grid.highest);
        ASSERT_EQ(bits(grid.value(e, codes[e])), bits(decoded[e])) << name_of(t) << " " << e;
      }
    }
  }
}

TEST(Grid, CodesAreSetWithoutTouchingScales) {
  Rng rng(4);
  for (const DType t : types_with_grid()) {
    for (int round = 0; round < 50; ++round) {
      auto block = random_block(t, rng);
      Grid before, after;
      read_grid(t, block.data(), before);
      const int n = before.elements;
      const auto range = static_cast<uint64_t>(before.highest - before.lowest + 1);
      int8_t codes[kSuperBlock], got[kSuperBlock];
      for (int e = 0; e < n; ++e) {
        codes[e] = static_cast<int8_t>(before.lowest + static_cast<int>(rng.below(range)));
      }
      write_codes(t, codes, block.data());
      read_grid(t, block.data(), after);
      read_codes(t, block.data(), got);
      float decoded[kSuperBlock];
      decode_row(t, block.data(), decoded, n);
      for (int e = 0; e < n; ++e) {
        ASSERT_EQ(got[e], codes[e]) << name_of(t) << " " << e;
        ASSERT_EQ(bits(before.step[e]), bits(after.step[e])) << name_of(t);
        ASSERT_EQ(bits(before.offset[e]), bits(after.offset[e])) << name_of(t);
        ASSERT_EQ(bits(after.value(e, codes[e])), bits(decoded[e])) << name_of(t) << " " << e;
      }
    }
  }
}

TEST(Grid, NearestIsNearest) {
  Rng rng(5);
  for (const DType t : types_with_grid()) {
    const auto block = random_block(t, rng);
    Grid grid;
    read_grid(t, block.data(), grid);
    for (int e = 0; e < grid.elements; ++e) {
      const auto x = static_cast<float>(rng.normal() * 2);
      const float found = std::fabs(grid.value(e, grid.nearest(e, x)) - x);
      float least = INFINITY;
      for (int c = grid.lowest; c <= grid.highest; ++c) {
        least = std::min(least, std::fabs(grid.value(e, c) - x));
      }
      EXPECT_LE(found, least + 1e-6f) << name_of(t);
    }
    const int of_nan = grid.nearest(0, NAN);
    EXPECT_TRUE(of_nan >= grid.lowest && of_nan <= grid.highest);
  }
}

TEST(Grid, PositionsRunThroughTheCodes) {
  Rng rng(6);
  for (const DType t : types_with_grid()) {
    const auto block = random_block(t, rng);
    Grid g;
    read_grid(t, block.data(), g);
    for (int e = 0; e < g.elements; ++e) {
      if (g.step[e] == 0.0f) continue;
      for (int c = g.lowest; c <= g.highest; ++c) {
        ASSERT_NEAR(g.position(e, g.value(e, c)), c, 1e-3) << name_of(t);
        ASSERT_NEAR(g.value_at(e, static_cast<float>(c)), g.value(e, c),
                    1e-4 * std::fabs(g.step[e]));
      }
      for (float p = static_cast<float>(g.lowest) - 0.8f; p < static_cast<float>(g.highest) + 0.9f;
           p += 0.1f) {
        const float x = g.value_at(e, p);
        ASSERT_NEAR(g.position(e, x), p, 2e-3) << name_of(t);
        const float from_tie = std::fabs(p - std::floor(p) - 0.5f);
        if (from_tie < 0.02f || p < static_cast<float>(g.lowest)) continue;
        const int code = std::min(g.highest, static_cast<int>(std::lround(p)));
        ASSERT_EQ(g.nearest(e, x), code) << name_of(t) << " " << p;
      }
    }
  }
}

TEST(Grid, ScalesAreSetWithoutTouchingCodes) {
  Rng rng(7);
  for (const DType t : types_with_grid()) {
    auto block = random_block(t, rng);
    const auto before = block;
    const BlockScales s = read_scales(t, block.data());
    write_scales(t, s, block.data());
    ASSERT_EQ(block, before) << name_of(t);
    EXPECT_EQ(has_offsets(t), s.m != 0) << name_of(t);
    Grid old_grid, grid;
    read_grid(t, block.data(), old_grid);
    write_scales(t, {2 * s.d, -s.m}, block.data());
    read_grid(t, block.data(), grid);
    int8_t old_codes[kSuperBlock], codes[kSuperBlock];
    read_codes(t, before.data(), old_codes);
    read_codes(t, block.data(), codes);
    for (int e = 0; e < grid.elements; ++e) {
      ASSERT_EQ(codes[e], old_codes[e]) << name_of(t);
      ASSERT_EQ(grid.step[e], 2 * old_grid.step[e]) << name_of(t);
      ASSERT_EQ(grid.offset[e], -old_grid.offset[e]) << name_of(t);
    }
    write_scales(t, {1e9f, 0}, block.data());
    EXPECT_EQ(read_scales(t, block.data()).d, 65504.0f) << name_of(t);
  }
}

}  // namespace
}  // namespace carat::quant
