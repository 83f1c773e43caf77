// Every table against the scalar one, bit for bit, on random odd shapes and on awkward values; the
// scalar one against sums in double.
#include "kernels/cpu/table.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/kv_pages.h"
#include "kernels/scalar/math.h"
#include "kernels/testing/quantized.h"
#include "quant/scheme.h"
#include "tensor/compare.h"

namespace carat::kernels {
namespace {

using Floats = std::vector<float>;
using test::Quantized;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

enum class Kind { kNormal, kOutliers, kZeros, kDenormals, kHuge, kMixed };
constexpr Kind kKinds[] = {Kind::kNormal, Kind::kOutliers,  Kind::kZeros,
                           Kind::kHuge,   Kind::kDenormals, Kind::kMixed};

float draw(Rng& rng, Kind kind) {
  const float x = static_cast<float>(rng.normal());
  switch (kind) {
    case Kind::kNormal:
      return x;
    case Kind::kOutliers:
      return rng.below(50) == 0 ? 1e4f * x : x;
    case Kind::kZeros:
      return rng.below(2) == 0 ? 0.0f : -0.0f;
    case Kind::kDenormals:
      return x * 1e-40f;
    case Kind::kHuge:
      return x * 1e30f;
    case Kind::kMixed:
      return std::ldexp(x, static_cast<int>(rng.below(200)) - 100);
  }
  return x;
}

Floats draw_all(Rng& rng, Kind kind, int64_t n) {
  Floats v(static_cast<size_t>(n));
  for (float& x : v) x = draw(rng, kind);
  return v;
}

class EveryTable : public testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& table = *GetParam();
  const KernelTable& oracle = generic_kernels();
};

INSTANTIATE_TEST_SUITE_P(Isa, EveryTable,
                         testing::ValuesIn(supported_kernels().begin(), supported_kernels().end()),
                         [](const auto& test) { return std::string(test.param->isa); });

FloatLinear float_linear_of(const KernelTable& t, DType dtype) {
  return dtype == DType::kF32 ? t.linear_f32 : dtype == DType::kF16 ? t.linear_f16 : t.linear_bf16;
}

TEST_P(EveryTable, FloatProductsMatchTheOracle) {
  Rng rng(9);
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int round = 0; round < 60; ++round) {
      const int64_t rows = 1 + static_cast<int64_t>(rng.below(23));
      // Some with more tokens and columns than a kernel keeps at a time.
      const int64_t n = 1 + static_cast<int64_t>(rng.below(round % 10 == 0 ? 150 : 9));
      const int64_t cols = 1 + static_cast<int64_t>(rng.below(round % 7 == 0 ? 1200 : 150));
      const Kind kind = kKinds[round % 6];
      Floats weights = draw_all(rng, dtype == DType::kF16 ? Kind::kNormal : kind, rows * cols);
      if (dtype == DType::kF16 && kind == Kind::kDenormals) {
        for (float& x : weights) x *= 1e-6f;
      }
      const int64_t row_size = row_bytes(dtype, cols);
      std::vector<std::byte> w(static_cast<size_t>(rows * row_size) + 2);
      quant::encode_row(dtype, weights.data(), w.data() + 2, rows * cols);
      const int64_t x_stride = cols + 2, y_stride = rows + 1;
      const Floats x = draw_all(rng, kind, n * x_stride);
      Floats want(static_cast<size_t>(n * y_stride), -5.0f), got = want;
      Floats scratch(static_cast<size_t>(kFloatPanelRows * cols));
      const WeightRows rows_of_w{w.data() + 2, row_size, rows, cols};
      float_linear_of(oracle, dtype)(rows_of_w, {x.data(), x_stride, n}, {want.data(), y_stride},
                                     scratch.data());
      float_linear_of(table, dtype)(rows_of_w, {x.data(), x_stride, n}, {got.data(), y_stride},
                                    scratch.data());
      ASSERT_EQ(first_bit_difference(got, want), -1)
          << name_of(dtype) << " " << rows << "x" << cols << " tokens " << n << ": "
          << to_string(compare(got, want));
    }
  }
}

TEST_P(EveryTable, FloatProductsAreTheProduct) {
  Rng rng(10);
  const int64_t rows = 13, cols = 301, n = 5;
  const Floats w = draw_all(rng, Kind::kNormal, rows * cols),
               x = draw_all(rng, Kind::kNormal, n * cols);
  Floats want(static_cast<size_t>(n * rows)), got = want;
  Floats scratch(static_cast<size_t>(kFloatPanelRows * cols));
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t o = 0; o < rows; ++o) {
      double sum = 0;
      for (int64_t i = 0; i < cols; ++i) {
        sum += static_cast<double>(x[static_cast<size_t>(t * cols + i)]) *
               w[static_cast<size_t>(o * cols + i)];
      }
      want[static_cast<size_t>(t * rows + o)] = static_cast<float>(sum);
    }
  }
  table.linear_f32({reinterpret_cast<const std::byte*>(w.data()), cols * 4, rows, cols},
                   {x.data(), cols, n}, {got.data(), rows}, scratch.data());
  EXPECT_LT(compare(got, want).nmse, 1e-13);
}

TEST_P(EveryTable, QuantizesLikeTheOracle) {
  Rng rng(11);
  for (Kind kind : kKinds) {
    const int64_t n = 3, cols = 192;
    const Floats x = draw_all(rng, kind, n * cols);
    Quantized want(n, cols), got(n, cols);
    oracle.quantize_rows(x.data(), want.rows);
    table.quantize_rows(x.data(), got.rows);
    EXPECT_EQ(got.codes, want.codes);
    EXPECT_EQ(got.sums, want.sums);
    EXPECT_EQ(got.half_sums, want.half_sums);
    EXPECT_EQ(first_bit_difference(got.scales, want.scales), -1);
    EXPECT_EQ(first_bit_difference(got.scaled_sums, want.scaled_sums), -1);
  }
}

TEST_P(EveryTable, QuantizedValuesAreClose) {
  Rng rng(12);
  const int64_t cols = 320;
  const Floats x = draw_all(rng, Kind::kOutliers, cols);
  Quantized q(1, cols);
  table.quantize_rows(x.data(), q.rows);
  for (int64_t b = 0; b < cols / 32; ++b) {
    float max = 0;
    int32_t half[2] = {0, 0};
    for (int64_t i = 0; i < 32; ++i) {
      const size_t at = static_cast<size_t>(32 * b + i);
      max = std::max(max, std::fabs(x[at]));
      half[i / 16] += q.codes[at];
    }
    const float scale = q.scales[static_cast<size_t>(b)];
    EXPECT_FLOAT_EQ(scale, max / 127);
    for (int64_t i = 32 * b; i < 32 * b + 32; ++i) {
      const size_t at = static_cast<size_t>(i);
      EXPECT_LE(std::abs(q.codes[at]), 127);
      EXPECT_LE(std::fabs(scale * q.codes[at] - x[at]), scale * 0.5001f);
    }
    EXPECT_EQ(q.sums[static_cast<size_t>(b)], 8 * (half[0] + half[1]));
    EXPECT_EQ(q.half_sums[static_cast<size_t>(2 * b)], half[0]);
    EXPECT_EQ(q.half_sums[static_cast<size_t>(2 * b + 1)], half[1]);
    EXPECT_EQ(q.scaled_sums[static_cast<size_t>(b)], scale * static_cast<float>(half[0] + half[1]));
  }
}

TEST_P(EveryTable, QuantizesWhatIsNotFiniteToNan) {
  for (float bad : {kNan, -kNan, kInf, -kInf}) {
    for (size_t place : {size_t{0}, size_t{13}, size_t{31}}) {
      Floats x(64, 1.5f);
      x[place] = bad;
      Quantized q(1, 64);
      table.quantize_rows(x.data(), q.rows);
      EXPECT_TRUE(std::isnan(q.scales[0]));
      EXPECT_FALSE(std::isnan(q.scales[1]));
      for (size_t i = 0; i < 32; ++i) EXPECT_EQ(q.codes[i], 0);
      EXPECT_EQ(q.codes[32], 127);
      EXPECT_EQ(q.sums[0], 0);

      int8_t codes[64];
      float scale;
      table.to_i8(x.data(), 64, codes, &scale);
      EXPECT_TRUE(std::isnan(scale));
      for (int8_t c : codes) EXPECT_EQ(c, 0);
    }
  }
}

TEST_P(EveryTable, QuantizesHalvesToEvenAndTinyToZero) {
  Floats x(32, 0.0f);
  x[0] = 127.0f;
  x[1] = 0.5f;
  x[2] = 1.5f;
  x[3] = -2.5f;
  Quantized q(1, 32);
  table.quantize_rows(x.data(), q.rows);
  EXPECT_EQ(q.scales[0], 1.0f);
  EXPECT_EQ(q.codes[1], 0);
  EXPECT_EQ(q.codes[2], 2);
  EXPECT_EQ(q.codes[3], -2);
  std::fill(x.begin(), x.end(), 0x1p-101f);
  table.quantize_rows(x.data(), q.rows);
  EXPECT_EQ(q.scales[0], 0.0f);
  EXPECT_EQ(q.codes[0], 0);
}

// Numbers on, beside and far from the levels and the places half way between two.
Floats around_levels(Rng& rng, float scale, int64_t n) {
  Floats x(static_cast<size_t>(n));
  for (float& v : x) {
    v = (static_cast<float>(rng.below(700)) - 350.0f) * 0.5f * scale;
    const auto step = rng.below(4);
    if (step == 0) v = std::nextafter(v, kInf);
    if (step == 1) v = std::nextafter(v, -kInf);
  }
  return x;
}

TEST_P(EveryTable, StaticCodesMatchTheOracle) {
  Rng rng(14);
  for (int round = 0; round < 400; ++round) {
    const int64_t n = static_cast<int64_t>(rng.below(round % 10 == 0 ? 3000 : 80));
    const float scale = round % 3 == 0 ? 0.0472441f : std::ldexp(1.1f, round % 280 - 140);
    Floats x = round % 2 == 0 ? around_levels(rng, scale, n) : draw_all(rng, kKinds[round % 6], n);
    if (round % 5 == 0 && n > 0) {
      const float odd[] = {kNan, -kNan, kInf, -kInf, 0x1p-149f};
      x[rng.below(static_cast<uint64_t>(n))] = odd[rng.below(5)];
    }
    std::vector<int8_t> want(static_cast<size_t>(n) + 1, 99), got = want;
    int32_t want_sum = -1, got_sum = -2;
    const float want_scale = oracle.static_codes(x.data(), n, scale, want.data(), &want_sum);
    const float got_scale = table.static_codes(x.data(), n, scale, got.data(), &got_sum);
    ASSERT_EQ(got, want) << "scale " << scale << " of " << n;
    ASSERT_EQ(got_sum, want_sum);
    ASSERT_EQ(std::bit_cast<uint32_t>(got_scale), std::bit_cast<uint32_t>(want_scale));

    Floats round_want(static_cast<size_t>(n) + 1, -7.0f), round_got = round_want;
    oracle.static_round(x.data(), n, scale, round_want.data());
    table.static_round(x.data(), n, scale, round_got.data());
    ASSERT_EQ(first_bit_difference(round_got, round_want), -1) << "scale " << scale;
    table.static_round(x.data(), n, scale, x.data());
    round_want.pop_back();
    ASSERT_EQ(first_bit_difference(x, round_want), -1) << "in place";
  }
}

TEST_P(EveryTable, StaticCodesRoundHalvesToEvenAndClamp) {
  const Floats x = {0.25f, 0.75f, -0.25f, -0.75f, 63.7f, 1e9f, -64.2f, -kInf, kInf, -0.0f};
  const std::vector<int8_t> codes = {0, 2, 0, -2, 127, 127, -128, -128, 127, 0};
  std::vector<int8_t> got(x.size());
  const auto n = static_cast<int64_t>(x.size());
  int32_t sum = 0;
  EXPECT_EQ(table.static_codes(x.data(), n, 0.5f, got.data(), &sum), 0.5f);
  EXPECT_EQ(got, codes);
  EXPECT_EQ(sum, 3 * 127 - 2 * 128);
  Floats y(x.size());
  table.static_round(x.data(), n, 0.5f, y.data());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], 0.5f * codes[i]) << i;
}

TEST_P(EveryTable, StaticCodesTellOfNan) {
  for (size_t place : {size_t{0}, size_t{31}, size_t{40}, size_t{66}}) {
    Floats x(67, 1.5f);
    x[place] = place == 31 ? -kNan : kNan;
    std::vector<int8_t> got(x.size());
    int32_t sum = 0;
    EXPECT_TRUE(std::isnan(table.static_codes(x.data(), 67, 0.5f, got.data(), &sum)));
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(got[i], i == place ? 0 : 3);
    EXPECT_EQ(sum, 66 * 3);
    table.static_round(x.data(), 67, 0.5f, x.data());
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_TRUE(i == place ? std::isnan(x[i]) : x[i] == 1.5f) << i;
    }
  }
}

// Runs f(table, out) on both tables over lengths with and without tails.
void expect_same(const KernelTable& table, int64_t n, const char* what,
                 const std::function<void(const KernelTable&, float*)>& f) {
  Floats want(static_cast<size_t>(n + 1), -7.0f), got = want;
  f(generic_kernels(), want.data());
  f(table, got.data());
  EXPECT_EQ(first_bit_difference(got, want), -1)
      << what << " of " << n << ": " << to_string(compare(got, want));
}

TEST_P(EveryTable, ElementsMatchTheOracle) {
  Rng rng(13);
  for (Kind kind : kKinds) {
    for (int64_t n : {1, 3, 8, 21, 64, 100}) {
      const Floats a = draw_all(rng, kind, n), b = draw_all(rng, kind, n);
      expect_same(table, n, "add", [&](auto& t, float* y) { t.add(a.data(), b.data(), n, y); });
      expect_same(table, n, "scale", [&](auto& t, float* y) { t.scale(a.data(), n, 0.3f, y); });
      expect_same(table, n, "geglu", [&](auto& t, float* y) { t.geglu(a.data(), b.data(), n, y); });
      expect_same(table, n, "softcap",
                  [&](auto& t, float* y) { t.softcap(a.data(), n, 30.0f, y); });
      expect_same(table, n, "multiply_add", [&](auto& t, float* y) {
        std::copy(b.begin(), b.end(), y);
        t.multiply_add(a.data(), n, -1.7f, y);
      });
    }
  }
}

// exp (through geglu), tanh (through softcap) over their whole range, with both neighbours of every
// power of two and what is not finite.
TEST_P(EveryTable, FunctionsMatchTheOracleEverywhere) {
  Floats x = {0.0f, -0.0f, kInf, -kInf, kNan};
  for (uint32_t e = 0; e < 255; ++e) {
    for (int step = -1; step <= 1; ++step) {
      const float v = std::bit_cast<float>((e << 23) + static_cast<uint32_t>(step));
      x.push_back(v);
      x.push_back(-v);
    }
  }
  for (float v = -110.0f; v < 110.0f; v += 0.0137f) x.push_back(v);
  const int64_t n = static_cast<int64_t>(x.size());
  const Floats ones(x.size(), 1.0f);
  expect_same(table, n, "geglu", [&](auto& t, float* y) { t.geglu(x.data(), ones.data(), n, y); });
  for (float cap : {1.0f, 30.0f}) {
    expect_same(table, n, "softcap", [&](auto& t, float* y) { t.softcap(x.data(), n, cap, y); });
  }
}

TEST_P(EveryTable, NormsMatchTheOracle) {
  Rng rng(14);
  for (Kind kind : kKinds) {
    for (int64_t cols : {1, 5, 8, 16, 33, 256}) {
      const int64_t n = 3;
      const Floats x = draw_all(rng, kind, n * cols), y = draw_all(rng, kind, n * cols);
      const Floats w = draw_all(rng, Kind::kNormal, cols);
      for (const float* weight : {w.data(), static_cast<const float*>(nullptr)}) {
        expect_same(table, n * cols, "rms_norm", [&](auto& t, float* out) {
          t.rms_norm(x.data(), weight, n, cols, 1e-6f, out);
        });
      }
      Floats fused(static_cast<size_t>(n * cols)), simple = fused;
      table.add_rms_norm(x.data(), y.data(), w.data(), n, cols, 1e-6f, fused.data());
      table.rms_norm(y.data(), w.data(), n, cols, 1e-6f, simple.data());
      table.add(x.data(), simple.data(), n * cols, simple.data());
      EXPECT_EQ(first_bit_difference(fused, simple), -1);
      expect_same(table, n * cols, "add_rms_norm", [&](auto& t, float* out) {
        t.add_rms_norm(x.data(), y.data(), w.data(), n, cols, 1e-6f, out);
      });
    }
  }
}

TEST_P(EveryTable, RopeMatchesTheOracleAndTurns) {
  Rng rng(15);
  for (int64_t head_dim : {2, 10, 16, 64, 256}) {
    for (int64_t n_pairs : {int64_t{0}, head_dim / 4, head_dim / 2}) {
      const int64_t heads = 3;
      const Floats x = draw_all(rng, Kind::kNormal, heads * head_dim);
      Floats cos, sin;
      for (int64_t i = 0; i < n_pairs; ++i) {
        const double angle = rng.uniform() * 6;
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
      expect_same(table, heads * head_dim, "rope", [&](auto& t, float* y) {
        t.rope(x.data(), cos.data(), sin.data(), n_pairs, heads, head_dim, y);
      });
      Floats y(x.size()), in_place = x;
      table.rope(x.data(), cos.data(), sin.data(), n_pairs, heads, head_dim, y.data());
      table.rope(in_place.data(), cos.data(), sin.data(), n_pairs, heads, head_dim,
                 in_place.data());
      EXPECT_EQ(in_place, y);
      double before = 0, after = 0;
      for (float v : x) before += static_cast<double>(v) * v;
      for (float v : y) after += static_cast<double>(v) * v;
      EXPECT_NEAR(after, before, 1e-5 * before);
    }
  }
}

TEST_P(EveryTable, AttentionMatchesTheOracle) {
  Rng rng(16);
  for (int round = 0; round < 120; ++round) {
    const int64_t dims[] = {8, 12, 16, 40, 64, 256};
    const int64_t head_dim = dims[rng.below(6)], n_q = 1 + static_cast<int64_t>(rng.below(5));
    const int64_t first = static_cast<int64_t>(rng.below(64));
    const int64_t n = 1 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(64 - first)));
    const Kind kind = round % 4 == 0 ? kKinds[round / 4 % 6] : Kind::kNormal;
    const Floats q = draw_all(rng, Kind::kNormal, n_q * head_dim);
    const Floats k = draw_all(rng, kind, n * head_dim), v = draw_all(rng, kind, n * head_dim);
    const KeySegment keys{k.data(), v.data(), first, n};
    const int64_t size = n_q * (head_dim + 2);
    expect_same(table, size, "attend", [&](auto& t, float* out) {
      Floats weights(static_cast<size_t>(n_q * kKvPageTokens));
      t.attend(q.data(), n_q, keys, head_dim, weights.data(), out, out + n_q, out + 2 * n_q);
    });
    const Floats total = draw_all(rng, Kind::kNormal, size),
                 next = draw_all(rng, Kind::kNormal, size);
    expect_same(table, size, "join", [&](auto& t, float* out) {
      std::copy(total.begin(), total.end(), out);
      t.join(out, out + n_q, out + 2 * n_q, next.data(), next.data() + n_q, next.data() + 2 * n_q,
             n_q, head_dim);
    });
    expect_same(table, n_q * head_dim, "finish", [&](auto& t, float* out) {
      std::copy(total.begin() + 2 * n_q, total.end(), out);
      t.finish(out, total.data(), n_q, head_dim);
    });
  }
}

// A page of random codes, extremes included, its scales, and what attention makes of it.
TEST_P(EveryTable, AttentionOverCodesMatchesTheOracle) {
  Rng rng(18);
  const int64_t dims[] = {2, 12, 16, 40, 64, 256, 512, 1024};
  for (int round = 0; round < 96; ++round) {
    const int64_t dim = dims[round % 8], padded = (dim + 15) / 16 * 16;
    const int64_t n = 1 + static_cast<int64_t>(rng.below(round % 3 == 0 ? 19 : 5));
    const int fill[] = {-1, 1, 255, 128};  // random, or all codes the same
    const auto draw_bytes = [&] {
      std::vector<uint8_t> bytes(static_cast<size_t>(padded * kKvPageTokens));
      const int f = fill[round / 8 % 4];
      for (uint8_t& b : bytes) b = static_cast<uint8_t>(f < 0 ? 1 + rng.below(255) : f);
      return bytes;
    };
    const std::vector<uint8_t> k = draw_bytes(), v = draw_bytes();
    Floats k_scale, v_scale;
    for (int64_t i = 0; i < kKvPageTokens; ++i) {
      k_scale.push_back(std::fabs(draw(rng, Kind::kNormal)) * 0.01f);
      v_scale.push_back(std::fabs(draw(rng, round % 5 == 0 ? Kind::kMixed : Kind::kNormal)));
    }
    std::vector<Places> seen;
    for (int64_t i = 0; i < n; ++i) {
      const auto begin = static_cast<int32_t>(round % 2 == 0 ? 0 : rng.below(64));
      seen.push_back(
          {begin, begin + 1 + static_cast<int32_t>(rng.below(static_cast<uint64_t>(64 - begin)))});
    }
    if (round % 7 == 3) v_scale[static_cast<size_t>(seen[0].begin)] = kNan;
    const Kind kind = round < 16 ? kKinds[round % 6] : Kind::kNormal;
    Floats q = draw_all(rng, kind, n * dim);
    if (round % 4 > 0 && round < 32) std::fill(q.begin(), q.end(), round % 2 == 0 ? 3.0f : -3.0f);
    if (round % 11 == 5) q[0] = kInf;
    const Floats totals = draw_all(rng, Kind::kNormal, n * dim);
    const CodePage page{k.data(), v.data(), k_scale.data(), v_scale.data()};
    expect_same(table, n * (dim + 4), "attention over codes", [&](auto& t, float* out) {
      std::vector<int16_t> q_codes(static_cast<size_t>(n * padded)), p_codes(64u * n);
      Floats scales(2u * n), keep(n), take(n), max(n), sum(n);
      std::vector<int32_t> sums(2u * n);
      const CodeRows qr{q_codes.data(), padded, scales.data(), sums.data()};
      const CodeRows pr{p_codes.data(), 64, scales.data() + n, sums.data() + n};
      t.round_rows(q.data(), n, dim, qr);
      t.weigh_codes(qr, n, page, seen.data(), dim, round % 2 == 0 ? k.data() : nullptr, pr,
                    max.data(), sum.data());
      float* joined = out + n * dim;
      std::copy(totals.begin(), totals.begin() + 2 * n, joined);
      t.join_weights(joined, joined + n, max.data(), sum.data(), n, joined + 2 * n, joined + 3 * n);
      std::copy(totals.begin(), totals.end(), out);
      t.join_values(pr, n, v.data(), dim, round % 2 == 0 ? v.data() : nullptr, joined + 2 * n,
                    joined + 3 * n, out, dim);
      // A maximum is only promised where no score is NaN.
      for (int64_t i = 0; i < n; ++i) {
        if (std::isnan(sum[static_cast<size_t>(i)])) {
          for (int64_t j = 0; j < 4; ++j) joined[j * n + i] = kNan;
        }
      }
    });
  }
}

TEST_P(EveryTable, ConvertsLikeTheOracle) {
  Rng rng(17);
  for (Kind kind : kKinds) {
    for (int64_t n : {1, 7, 8, 40, 67}) {
      Floats x = draw_all(rng, kind, n);
      if (kind == Kind::kMixed && n > 8) x[3] = kInf, x[5] = -kInf;
      std::vector<uint16_t> want16(x.size()), got16 = want16;
      oracle.to_f16(x.data(), n, want16.data());
      table.to_f16(x.data(), n, got16.data());
      EXPECT_EQ(got16, want16);
      expect_same(table, n, "from_f16",
                  [&](auto& t, float* y) { t.from_f16(want16.data(), n, y); });

      std::vector<int8_t> want8(x.size()), got8 = want8;
      float want_scale, got_scale;
      oracle.to_i8(x.data(), n, want8.data(), &want_scale);
      table.to_i8(x.data(), n, got8.data(), &got_scale);
      EXPECT_EQ(got8, want8);
      EXPECT_EQ(first_bit_difference({&got_scale, 1}, {&want_scale, 1}), -1);
    }
  }
}

TEST(Dispatch, ChoosesByName) {
  EXPECT_STREQ(choose_kernels("generic").isa, "generic");
  EXPECT_EQ(&choose_kernels(), supported_kernels().front());
  EXPECT_EQ(supported_kernels().back(), &generic_kernels());
  EXPECT_ANY_THROW((void)choose_kernels("avx9"));
  EXPECT_ANY_THROW((void)choose_kernels(""));
}

}  // namespace
}  // namespace carat::kernels
