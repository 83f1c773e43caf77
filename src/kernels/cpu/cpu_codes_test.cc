// The mobile format in CpuOps (ops.h, "static activations"): every result against the formulas
// written out, bit for bit, on every table and number of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/half.h"
#include "kernels/cpu/cpu_ops_testing.h"
#include "kernels/scalar/activation.h"
#include "kernels/scalar/static_round.h"
#include "kernels/testing/quantized.h"

namespace carat::kernels {
namespace {

using test::CodedWeight;
using test::consecutive_rows;
using test::expect_same_everywhere;
using test::Floats;
using test::normal;
using test::OwnedCache;
using test::OwnedWeight;
using test::values_of;

constexpr DType kCodes[] = {DType::kC2, DType::kC4, DType::kC8};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// x w^T of matrix m by the formulas of ops.h.
Floats product(const CodedWeight& c, int64_t m, const Floats& x, int64_t row_begin, int64_t rows) {
  const Weight& w = c.weight;
  const int64_t n = static_cast<int64_t>(x.size()) / w.cols, blocks = w.cols / 32;
  std::vector<int8_t> codes(x.size());
  Floats block_scales(static_cast<size_t>(n * blocks), 1.0f), y;
  test::Quantized q(n, w.cols);
  generic_kernels().quantize_rows(x.data(), q.rows);
  for (int64_t t = 0; t < n; ++t) {
    float dx = 0;
    int8_t* row = codes.data() + t * w.cols;
    if (w.input_scale > 0) {
      dx = scalar::static_codes(x.data() + t * w.cols, w.cols, w.input_scale, row);
    } else {
      std::copy_n(q.codes.data() + t * w.cols, w.cols, row);
    }
    for (int64_t o = row_begin; o < row_begin + rows; ++o) {
      const int64_t at = m * w.rows + o;
      const int8_t* weights = c.codes.data() + at * w.cols;
      const float scale = c.scales[static_cast<size_t>(at)];
      int64_t whole = 0;
      float acc = 0;
      for (int64_t b = 0; b < blocks; ++b) {
        int32_t sum = 0;
        for (int64_t i = 32 * b; i < 32 * b + 32; ++i) sum += row[i] * weights[i];
        acc = std::fma(q.scales[static_cast<size_t>(t * blocks + b)], static_cast<float>(sum), acc);
        whole += sum;
      }
      float result = w.input_scale > 0 ? static_cast<float>(whole) * (scale * dx) : acc * scale;
      if (w.output_scale > 0) {
        result = scalar::static_level(result, w.output_scale) * w.output_scale;
      }
      y.push_back(result);
    }
  }
  return y;
}

Floats product(const CodedWeight& c, const Floats& x) { return product(c, 0, x, 0, c.weight.rows); }

struct Scales {
  float in, out;
};
// None; some that clip nothing, and much.
constexpr Scales kScales[] = {{0, 0}, {0.03f, 0}, {0.03f, 0.002f}, {0.005f, 0.0001f}, {0, 0.002f}};

TEST(CodedWeights, LinearHasTheBitsOfTheFormulas) {
  Rng rng(51);
  for (DType dtype : kCodes) {
    for (const Scales& s : kScales) {
      const int64_t rows = 1 + static_cast<int64_t>(rng.below(200));
      const int64_t cols = 32 * (1 + static_cast<int64_t>(rng.below(20)));
      const CodedWeight w(rng, dtype, 1, rows, cols, s.in, s.out);
      for (int64_t n : {1, 3, 70}) {
        const Floats x = normal(rng, n * cols);
        const Floats want = product(w, x);
        expect_same_everywhere(name_of(dtype), [&](CpuOps& ops) {
          const Value in = ops.input(n, cols, x);
          const Floats got = values_of(ops, ops.linear(in, w));
          EXPECT_EQ(first_bit_difference(got, want), -1) << name_of(dtype) << " " << s.in;
          const auto last = static_cast<int32_t>(n - 1);
          const Floats alone = values_of(ops, ops.linear(ops.take_rows(in, {&last, 1}), w));
          EXPECT_EQ(first_bit_difference(alone, std::span(want).last(alone.size())), -1);
          return got;
        });
      }
    }
  }
}

TEST(CodedWeights, OutputsThatAreRoundedClip) {
  Rng rng(52);
  const CodedWeight w(rng, DType::kC4, 1, 40, 64, 0.02f, 0.0004f);
  const Floats y = product(w, normal(rng, 3 * 64));
  const auto largest = std::max_element(y.begin(), y.end()),
             least = std::min_element(y.begin(), y.end());
  EXPECT_EQ(*largest, 127 * 0.0004f);
  EXPECT_EQ(*least, -128 * 0.0004f);
}

// One value read with several scales at once, and rounded per 32 elements too.
TEST(CodedWeights, GatedHasTheBitsOfTheFormulas) {
  Rng rng(53);
  const int64_t cols = 96;
  for (DType dtype : kCodes) {
    for (int64_t width : {16, 100, 288}) {
      for (const Scales& s : kScales) {
        const CodedWeight gate(rng, dtype, 1, width, cols, s.in, s.out),
            up(rng, DType::kC8, 1, width, cols, 2 * s.in, s.out / 2);
        const int64_t n = width == 100 ? 1 : 9;
        const Floats x = normal(rng, n * cols);
        const Floats g = product(gate, x), u = product(up, x);
        Floats want;
        for (size_t i = 0; i < g.size(); ++i) want.push_back(scalar::gelu_tanh(g[i]) * u[i]);
        expect_same_everywhere("gated", [&](CpuOps& ops) {
          const Value in = ops.input(n, cols, x);
          const Value fused = ops.gated(in, gate, up);
          Floats got = values_of(ops, fused);
          EXPECT_EQ(first_bit_difference(got, want), -1);
          EXPECT_EQ(first_bit_difference(values_of(ops, ops.Ops::gated(in, gate, up)), want), -1);
          if (width % 32 != 0) return got;
          Rng down_rng(54);
          const CodedWeight down(down_rng, DType::kC2, 1, 40, width, s.in / 4, s.out);
          got = values_of(ops, ops.linear(fused, down));
          EXPECT_EQ(first_bit_difference(got, product(down, want)), -1);
          return got;
        });
      }
    }
  }
}

TEST(CodedWeights, NormsFeedEveryKindOfProduct) {
  Rng rng(55);
  const OwnedWeight norm(rng, DType::kF32, 1, 1, 64);
  const CodedWeight fixed(rng, DType::kC4, 1, 48, 64, 0.004f, 0.0f),
      free(rng, DType::kC2, 1, 48, 64);
  const Floats x = normal(rng, 5 * 64);
  expect_same_everywhere("norms", [&](CpuOps& ops) {
    Floats all;
    for (int round = 0; round < 2; ++round) {  // the second after a product with static codes
      const Value y = ops.rms_norm(ops.input(5, 64, x), &norm.weight, 64, 1e-6f);
      const Floats a = values_of(ops, ops.linear(y, fixed)),
                   b = values_of(ops, ops.linear(y, free));
      EXPECT_EQ(a, product(fixed, values_of(ops, y)));
      EXPECT_EQ(b, product(free, values_of(ops, y)));
      all.insert(all.end(), a.begin(), a.end());
      all.insert(all.end(), b.begin(), b.end());
    }
    return all;
  });
}

TEST(CodedWeights, ANanStaysInItsRow) {
  Rng rng(56);
  for (DType dtype : kCodes) {
    for (const Scales& s : kScales) {
      const CodedWeight w(rng, dtype, 1, 24, 128, s.in, s.out);
      Floats x = normal(rng, 3 * 128);
      x[128 + 77] = kNan;
      expect_same_everywhere("NaN", [&](CpuOps& ops) {
        Floats y = values_of(ops, ops.linear(ops.input(3, 128, x), w));
        for (size_t i = 0; i < y.size(); ++i) {
          EXPECT_EQ(std::isnan(y[i]), i / 24 == 1) << name_of(dtype) << " " << s.in << " " << i;
          if (std::isnan(y[i])) y[i] = 0;
        }
        return y;
      });
    }
  }
}

TEST(CodedWeights, InfinityIsClipped) {
  Rng rng(57);
  const CodedWeight w(rng, DType::kC8, 1, 24, 32, 0.5f);
  Floats x(32, 0.0f);
  x[3] = -std::numeric_limits<float>::infinity();
  ThreadPool pool(1);
  CpuOps ops(pool);
  const Floats y = values_of(ops, ops.linear(ops.input(1, 32, x), w));
  for (size_t o = 0; o < y.size(); ++o) {
    EXPECT_EQ(y[o], static_cast<float>(-128 * w.codes[o * 32 + 3]) * (w.scales[o] * 0.5f));
  }
}

TEST(CodedWeights, Experts) {
  Rng rng(58);
  const int64_t n = 6, dim = 64, ffn = 32, n_experts = 5, top_k = 2;
  for (const Scales& s : kScales) {
    const CodedWeight gate_up(rng, DType::kC4, n_experts, 2 * ffn, dim, s.in, s.out),
        down(rng, DType::kC2, n_experts, dim, ffn, s.in / 8, s.out);
    const OwnedWeight scales(rng, DType::kF32, 1, 1, n_experts);
    const Floats x = normal(rng, n * dim), logits = normal(rng, n * n_experts);
    expect_same_everywhere("experts", [&](CpuOps& ops) {
      const Route route = ops.route(ops.input(n, n_experts, logits), scales, top_k);
      const Floats got = values_of(ops, ops.experts(ops.input(n, dim, x), route, gate_up, down));
      const Floats weights = values_of(ops, route.weights);
      Floats want(got.size(), 0.0f);
      for (size_t slot = 0; slot < weights.size(); ++slot) {
        const int64_t e = (*route.ids)[slot];
        const size_t t = slot / top_k;
        const Floats row(x.begin() + static_cast<int64_t>(t) * dim,
                         x.begin() + static_cast<int64_t>(t + 1) * dim);
        const Floats g = product(gate_up, e, row, 0, ffn), u = product(gate_up, e, row, ffn, ffn);
        Floats hidden;
        for (size_t i = 0; i < g.size(); ++i) hidden.push_back(scalar::gelu_tanh(g[i]) * u[i]);
        const Floats out = product(down, e, hidden, 0, dim);
        for (size_t i = 0; i < out.size(); ++i) {
          want[t * dim + i] = std::fma(weights[slot], out[i], want[t * dim + i]);
        }
      }
      EXPECT_EQ(first_bit_difference(got, want), -1);
      return got;
    });
  }
}

TEST(CodedWeights, EmbedScalesRowsAndGroups) {
  Rng rng(59);
  const std::vector<int32_t> ids = {3, 0, 6, 3};
  const int64_t rows = 7, cols = 512;
  for (DType dtype : kCodes) {
    for (DType scale_type : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (int64_t columns : {int64_t{256}, cols}) {
        const CodedWeight codes(rng, dtype, 1, rows, cols);
        const int64_t groups = cols / columns;
        const Floats from = normal(rng, rows * groups);
        const OwnedWeight scales(scale_type, 1, rows, groups, from);
        std::vector<std::byte> image(100);
        image.insert(image.end(), scales.bytes.begin(), scales.bytes.end());
        const auto file = memory_file("scales", image);
        Weight table = codes.weight;
        table.scales = {file.get(), 100, scale_type, columns};
        ThreadPool pool(2);
        CpuOps ops(pool);
        for (int64_t begin = 0; begin < cols; begin += columns) {
          const Floats y = values_of(ops, ops.embed(table, ids, begin, columns, 3.0f));
          for (size_t i = 0; i < y.size(); ++i) {
            const int64_t row = ids[i / static_cast<size_t>(columns)];
            const int64_t at = begin + static_cast<int64_t>(i) % columns;
            const float code = codes.codes[static_cast<size_t>(row * cols + at)];
            const float scale = scales.values[static_cast<size_t>(row * groups + at / columns)];
            ASSERT_EQ(y[i], code * scale * 3.0f) << name_of(dtype) << " " << i;
          }
        }
        // All columns at once, and rows of a slice.
        const Floats y = values_of(ops, ops.embed(table, ids, 0, cols, 1.0f));
        table.layout = Layout::kRows;
        const std::vector<int32_t> first = {0};
        EXPECT_EQ(values_of(ops, ops.embed(slice_rows(table, 3, 2), first, 0, cols, 1.0f)),
                  Floats(y.begin(), y.begin() + cols));
      }
    }
  }
}

AttentionCall one_token(const KvLayer& layer, const std::vector<RowRef>& rows) {
  return {.n_heads = layer.n_kv_heads,
          .n_kv_heads = layer.n_kv_heads,
          .head_dim = layer.head_dim,
          .k_scale = 0.05f,
          .v_scale = 0.02f,
          .q_rows = rows,
          .kv_rows = rows,
          .sequences = {&layer, 1}};
}

TEST(StaticKeysAndValues, PagesHoldTheCodes) {
  Rng rng(60);
  const int64_t dim = 48, n = 3;
  const Floats q = normal(rng, n * dim), k = normal(rng, n * dim, 4.0f),
               v = normal(rng, n * dim, 2.0f);
  const std::vector<RowRef> rows = consecutive_rows(0, n);
  for (const KernelTable* kernels : supported_kernels()) {
    ThreadPool pool(2);
    CpuOps ops(pool, *kernels);
    const auto run = [&](OwnedCache& cache) {
      (void)ops.attention(ops.input(n, dim, q), ops.input(n, dim, k), ops.input(n, dim, v),
                          one_token(cache.layer, rows));
    };
    OwnedCache codes(KvType::kI8, 1, dim, 64), floats(KvType::kF32, 1, dim, 64),
        halves(KvType::kF16, 1, dim, 64);
    for (OwnedCache* cache : {&codes, &floats, &halves}) run(*cache);
    bool clipped = false;
    const auto* bytes = reinterpret_cast<const uint8_t*>(codes.pages[0]);
    const auto* words = reinterpret_cast<const float*>(floats.pages[0]);
    const auto* shorts = reinterpret_cast<const uint16_t*>(halves.pages[0]);
    const auto* scales = reinterpret_cast<const float*>(bytes + 2 * 64 * dim);
    for (int64_t t = 0; t < n; ++t) {
      EXPECT_EQ(scales[t], 0.05f);
      EXPECT_EQ(scales[64 + t], 0.02f);
      for (int64_t d = 0; d < dim; ++d) {
        const size_t at = static_cast<size_t>(t * dim + d);
        const float kl = scalar::static_level(k[at], 0.05f),
                    vl = scalar::static_level(v[at], 0.02f);
        clipped = clipped || kl == -128.0f;
        EXPECT_EQ(bytes[k_code_at(d, t)] - 128, kl);
        EXPECT_EQ(bytes[64 * dim + v_code_at(d, t)] - 128, vl);
        EXPECT_EQ(words[t * dim + d], kl * 0.05f);
        EXPECT_EQ(words[(64 + t) * dim + d], vl * 0.02f);
        EXPECT_EQ(shorts[t * dim + d], to_f16(kl * 0.05f).bits);
        EXPECT_EQ(shorts[(64 + t) * dim + d], to_f16(vl * 0.02f).bits);
      }
    }
    EXPECT_TRUE(clipped);
  }
}

// The largest sums there are: every code of a key -128, the query's codes all 16383.
TEST(StaticKeysAndValues, TheLowestCodesAreExact) {
  const int64_t dim = kMaxHeadDim;
  const Floats q(static_cast<size_t>(dim), 1.0f), low(static_cast<size_t>(dim), -100.0f);
  const std::vector<RowRef> rows = consecutive_rows(0, 1);
  expect_same_everywhere("extremes", [&](CpuOps& ops) {
    OwnedCache cache(KvType::kI8, 1, dim, 64);
    const Value key = ops.input(1, dim, low);
    const Floats y =
        values_of(ops, ops.attention(ops.input(1, dim, q), key, key, one_token(cache.layer, rows)));
    for (float x : y) EXPECT_FLOAT_EQ(x, -128 * 0.02f);
    return y;
  });
}

TEST(StaticKeysAndValues, ANanIsSeenByItsReaders) {
  Rng rng(61);
  const int64_t dim = 32;
  Floats k = normal(rng, 2 * dim);
  k[dim + 5] = kNan;
  const std::vector<RowRef> rows = consecutive_rows(0, 2);
  for (KvType type : {KvType::kF32, KvType::kF16, KvType::kI8}) {
    for (const KernelTable* kernels : supported_kernels()) {
      ThreadPool pool(1);
      CpuOps ops(pool, *kernels);
      OwnedCache cache(type, 1, dim, 64);
      const Value x = ops.input(2, dim, normal(rng, 2 * dim));
      const Floats y =
          values_of(ops, ops.attention(x, ops.input(2, dim, k), x, one_token(cache.layer, rows)));
      for (size_t i = 0; i < y.size(); ++i) {
        EXPECT_EQ(std::isnan(y[i]), i >= static_cast<size_t>(dim)) << kernels->isa << " " << i;
      }
    }
  }
}

TEST(CodedWeightsDeathTest, WhatHasNoProductIsABug) {
  Rng rng(62);
  ThreadPool pool(1);
  CpuOps ops(pool);
  const Value x = ops.input(1, 64, normal(rng, 64));
  CodedWeight rows(rng, DType::kC4, 1, 16, 64);
  rows.weight.layout = Layout::kRows;
  EXPECT_DEATH((void)ops.linear(x, rows), "");
  OwnedWeight floats(rng, DType::kF32, 1, 16, 64);
  floats.weight.input_scale = 1.0f;
  EXPECT_DEATH((void)ops.linear(x, floats), "");
  const CodedWeight wide(rng, DType::kC2, 1, 1, kStaticCols + 32, 1.0f);
  const Value long_row = ops.input(1, kStaticCols + 32, Floats(kStaticCols + 32, 1.0f));
  EXPECT_DEATH((void)ops.linear(long_row, wide), "");
  AttentionCall call;
  call.n_heads = call.n_kv_heads = 1;
  call.head_dim = kMaxHeadDim + 1;
  const Value head = ops.input(1, call.head_dim, Floats(kMaxHeadDim + 1, 1.0f));
  EXPECT_DEATH((void)ops.attention(head, head, head, call), "head_dim");
}

}  // namespace
}  // namespace carat::kernels
