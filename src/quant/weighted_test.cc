// Encoding with weights: every type, against its own encoding without.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/rng.h"
#include "quant/scheme.h"

namespace carat::quant {
namespace {

using Floats = std::vector<float>;

constexpr size_t kN = 256 * 12;

Floats values(uint64_t seed) {
  Rng rng(seed);
  Floats x(kN);
  for (float& v : x) v = static_cast<float>(rng.normal() * (rng.below(64) == 0 ? 0.2 : 0.03));
  return x;
}

// As importance matrices have them: a few columns count hundreds of times as much.
Floats weights(uint64_t seed, double spread) {
  Rng rng(seed);
  Floats w(kN);
  for (float& v : w) v = static_cast<float>(std::exp(spread * rng.normal()));
  return w;
}

std::vector<std::byte> encode(DType t, const Floats& x, const Floats* w = nullptr) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<std::byte> row(static_cast<size_t>(row_bytes(t, n)));
  encode_row(t, x.data(), row.data(), n, w != nullptr ? w->data() : nullptr);
  return row;
}

// Of each block.
std::vector<double> errors(DType t, const Floats& x, const Floats& w,
                           const std::vector<std::byte>& row) {
  Floats y(x.size());
  decode_row(t, row.data(), y.data(), static_cast<int64_t>(y.size()));
  const auto block = static_cast<size_t>(info(t).block_elements);
  std::vector<double> e(x.size() / block);
  for (size_t i = 0; i < x.size(); ++i)
    e[i / block] += double{w[i]} * (x[i] - y[i]) * (x[i] - y[i]);
  return e;
}

double sum(const std::vector<double>& v) {
  double s = 0;
  for (const double x : v) s += x;
  return s;
}

std::vector<DType> types() {
  std::vector<DType> all;
  for (const DTypeInfo& i : all_dtypes()) {
    if (i.block_elements > 1 && i.gguf_id >= 0) all.push_back(i.dtype);
  }
  return all;
}

TEST(Weighted, LosesLessOfWhatCounts) {
  for (const DType t : types()) {
    for (const double spread : {0.5, 1.5, 3.0}) {
      const Floats x = values(3), w = weights(4, spread);
      const double even = sum(errors(t, x, w, encode(t, x)));
      const double fitted = sum(errors(t, x, w, encode(t, x, &w)));
      // Of a block with one exponent for all there is little to choose.
      const double most = t == DType::kMXFP4 ? 1.0 : spread < 1 ? 0.995 : 0.92;
      EXPECT_LE(fitted, most * even) << name_of(t) << " " << spread;
    }
  }
}

TEST(Weighted, NoBlockOfOneScaleLosesMoreThanByThePlainRule) {
  for (const DType t : {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0}) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      Floats x = values(seed);
      if (seed % 2 == 0) std::fill_n(x.begin() + 64, 64, 0.25f);
      Floats w = weights(seed + 100, 0.2 * static_cast<double>(seed));
      if (seed % 3 == 0) {
        for (size_t i = 0; i < kN; i += 3) w[i] = 0;
      }
      const auto even = errors(t, x, w, encode(t, x));
      const auto fitted = errors(t, x, w, encode(t, x, &w));
      for (size_t b = 0; b < even.size(); ++b) {
        EXPECT_LE(fitted[b], even[b] * (1 + 1e-4) + 1e-12) << name_of(t) << " " << seed << " " << b;
      }
    }
  }
}

// The sub-blocks of one block compete for its scale, so of these types only the sum is promised.
TEST(Weighted, OfEqualWeightsIsNoWorseThanTheEvenSearch) {
  for (const DType t : types()) {
    const Floats x = values(7), w(kN, 0.37f);
    EXPECT_LE(sum(errors(t, x, w, encode(t, x, &w))), 1.002 * sum(errors(t, x, w, encode(t, x))))
        << name_of(t);
  }
}

TEST(Weighted, TheUnitOfWeightsDoesNotMatter) {
  for (const DType t : types()) {
    const Floats x = values(5), w = weights(6, 1);
    Floats small = w, large = w;
    for (float& v : small) v *= 0x1p-100f;
    for (float& v : large) v *= 0x1p100f;
    EXPECT_EQ(encode(t, x, &w), encode(t, x, &small)) << name_of(t);
    EXPECT_EQ(encode(t, x, &w), encode(t, x, &large)) << name_of(t);
  }
}

TEST(Weighted, WithoutWeightToGiveAllCountAlike) {
  for (const DType t : types()) {
    const Floats x = values(8), none(kN, 0.0f);
    EXPECT_EQ(encode(t, x, &none), encode(t, x)) << name_of(t);
  }
}

TEST(Weighted, ExtremeValuesAndWeightsGiveFiniteBlocks) {
  for (const DType t : types()) {
    for (const float scale : {0.0f, 1e-44f, 1e-30f, 1e4f}) {
      Floats x = values(9), w = weights(10, 20), y(kN);
      for (float& v : x) v *= scale;
      const auto row = encode(t, x, &w);
      decode_row(t, row.data(), y.data(), static_cast<int64_t>(kN));
      for (const float v : y) ASSERT_TRUE(std::isfinite(v)) << name_of(t) << " " << scale;
    }
  }
}

}  // namespace
}  // namespace carat::quant
