#include "kernels/cpu/cpu_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <new>
#include <string>

#include "base/file.h"
#include "kernels/cpu/cpu_ops_testing.h"
#include "kernels/scalar/activation.h"
#include "kernels/scalar/rms_norm.h"
#include "kernels/scalar/rope.h"
#include "tensor/compare.h"

namespace carat::kernels {
namespace {

using test::Floats;
using test::normal;
using test::OwnedWeight;
using test::values_of;

constexpr DType kTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16,
                            DType::kQ4_0, DType::kQ8_0, DType::kQ6_K};

class CpuOpsTest : public testing::Test {
 protected:
  ThreadPool pool_{2};
  CpuOps ops_{pool_};
  Rng rng_{21};

  Value random(int64_t rows, int64_t cols) {
    return ops_.input(rows, cols, normal(rng_, rows * cols));
  }
};

TEST_F(CpuOpsTest, InputAndReadKeepValues) {
  const Floats x = normal(rng_, 12);
  const Value v = ops_.input(3, 4, x);
  EXPECT_EQ(v->rows, 3);
  EXPECT_EQ(v->cols, 4);
  Floats out(12);
  ops_.read(v, out);
  EXPECT_EQ(out, x);
}

TEST_F(CpuOpsTest, LinearMultipliesByTheDequantizedMatrix) {
  for (DType dtype : kTypes) {
    const OwnedWeight w(rng_, dtype, 1, 70, 512);
    const Value x = random(5, 512);
    const Value y = ops_.linear(x, w);
    ASSERT_EQ(y->rows, 5);
    ASSERT_EQ(y->cols, 70);
    Floats want;
    const auto in = ops_.view(x);
    for (size_t t = 0; t < 5; ++t) {
      for (size_t o = 0; o < 70; ++o) {
        double sum = 0;
        for (size_t i = 0; i < 512; ++i) sum += double{in[t * 512 + i]} * w.values[o * 512 + i];
        want.push_back(static_cast<float>(sum));
      }
    }
    // int8 activations: relative error about 1/127/sqrt(12) of the largest of 32.
    const double limit = info(dtype).block_elements > 1 ? 1e-4 : 1e-12;
    EXPECT_LT(compare(ops_.view(y), want).nmse, limit) << name_of(dtype);
  }
}

TEST_F(CpuOpsTest, LinearOfASliceIsASliceOfLinear) {
  for (DType dtype : kTypes) {
    const OwnedWeight w(rng_, dtype, 1, 64, 256);
    const Value x = random(3, 256);
    const Floats all = values_of(ops_, ops_.linear(x, w));
    const Floats part = values_of(ops_, ops_.linear(x, slice_rows(w, 17, 21)));
    for (size_t t = 0; t < 3; ++t) {
      for (size_t o = 0; o < 21; ++o) EXPECT_EQ(part[t * 21 + o], all[t * 64 + 17 + o]);
    }
  }
}

TEST_F(CpuOpsTest, NormsOfEveryWeightType) {
  const Value x = random(3, 96);
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const OwnedWeight w(rng_, dtype, 1, 1, 96);
    const Value y = ops_.rms_norm(x, &w.weight, 96, 1e-6f);
    Floats want(3 * 96);
    for (int64_t t = 0; t < 3; ++t) {
      scalar::rms_norm(ops_.view(x).data() + t * 96, w.values.data(), int64_t{96}, 1e-6f,
                       want.data() + t * 96);
    }
    EXPECT_EQ(values_of(ops_, y), want);
  }
  // Heads of 32 columns share a weight.
  const OwnedWeight w(rng_, DType::kF32, 1, 1, 32);
  const Floats y = values_of(ops_, ops_.rms_norm(x, &w.weight, 32, 1e-6f));
  const Floats plain = values_of(ops_, ops_.rms_norm(x, nullptr, 32, 1e-6f));
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], plain[i] * w.values[i % 32]);
}

TEST_F(CpuOpsTest, WeightsNeedNoAlignment) {
  const OwnedWeight w(rng_, DType::kF32, 1, 8, 24);
  std::vector<std::byte> shifted(w.bytes.size() + 1);
  std::copy(w.bytes.begin(), w.bytes.end(), shifted.begin() + 1);
  Weight odd = w;
  odd.data = shifted.data() + 1;
  const Value x = random(2, 24);
  EXPECT_EQ(values_of(ops_, ops_.linear(x, odd)), values_of(ops_, ops_.linear(x, w)));
  const Weight norm = slice_rows(w, 0, 1), odd_norm = slice_rows(odd, 0, 1);
  EXPECT_EQ(values_of(ops_, ops_.rms_norm(x, &odd_norm, 24, 1e-6f)),
            values_of(ops_, ops_.rms_norm(x, &norm, 24, 1e-6f)));
}

TEST_F(CpuOpsTest, RopeTurnsEveryHeadToItsPosition) {
  Rope rope{16, {}};
  for (int i = 0; i < 8; ++i) rope.inverse_frequency.push_back(i < 5 ? std::pow(0.3f, i) : 0.0f);
  const Value x = random(3, 48);
  for (int32_t base : {0, 1000}) {  // twice, so that remembered positions are replaced
    const std::vector<RowRef> rows = {{0, base + 3}, {1, base}, {0, base + 70}};
    const Floats y = values_of(ops_, ops_.rope(x, rope, rows));
    for (size_t t = 0; t < 3; ++t) {
      for (size_t h = 0; h < 3; ++h) {
        for (size_t i = 0; i < 8; ++i) {
          const float angle = static_cast<float>(rows[t].position) * rope.inverse_frequency[i];
          const double c = std::cos(double{angle}), s = std::sin(double{angle});
          const size_t at = t * 48 + h * 16 + i;
          const double a = ops_.view(x)[at], b = ops_.view(x)[at + 8];
          EXPECT_NEAR(y[at], a * c - b * s, 1e-6);
          EXPECT_NEAR(y[at + 8], b * c + a * s, 1e-6);
        }
      }
    }
  }
}

TEST_F(CpuOpsTest, PointwiseOps) {
  const Value a = random(3, 50), b = random(3, 50);
  const OwnedWeight s(DType::kF32, 1, 1, 1, {0.25f});
  const Floats x = values_of(ops_, a), y = values_of(ops_, b);
  const Floats sum = values_of(ops_, ops_.add(a, b)), by = values_of(ops_, ops_.scale_by(a, s)),
               scaled = values_of(ops_, ops_.scale(a, -3.0f)),
               gated = values_of(ops_, ops_.geglu(a, b)),
               capped = values_of(ops_, ops_.softcap(a, 2.0f));
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(sum[i], x[i] + y[i]);
    EXPECT_EQ(by[i], x[i] * 0.25f);
    EXPECT_EQ(scaled[i], x[i] * -3.0f);
    EXPECT_EQ(gated[i], scalar::gelu_tanh(x[i]) * y[i]);
    EXPECT_EQ(capped[i], 2.0f * scalar::tanh_of(x[i] / 2.0f));
  }
  EXPECT_EQ(values_of(ops_, a), x);  // no op changes what it was given
  EXPECT_EQ(values_of(ops_, b), y);
}

TEST_F(CpuOpsTest, EmbedReadsMemoryAndFileAlike) {
  const std::vector<int32_t> ids = {3, 0, 6, 3};
  for (DType dtype : kTypes) {
    const OwnedWeight table(rng_, dtype, 1, 7, 512);
    std::vector<std::byte> image(100 + table.bytes.size());
    std::copy(table.bytes.begin(), table.bytes.end(), image.begin() + 100);
    const auto file = memory_file("table", image);
    Weight looked_up = table;
    looked_up.data = nullptr;
    looked_up.file = file.get();
    looked_up.file_offset = 100;
    const Floats y = values_of(ops_, ops_.embed(table, ids, 256, 256, 3.0f));
    EXPECT_EQ(values_of(ops_, ops_.embed(looked_up, ids, 256, 256, 3.0f)), y);
    for (size_t t = 0; t < ids.size(); ++t) {
      for (size_t i = 0; i < 256; ++i) {
        EXPECT_EQ(y[t * 256 + i], table.values[static_cast<size_t>(ids[t]) * 512 + 256 + i] * 3.0f);
      }
    }
  }
}

TEST_F(CpuOpsTest, EmbedOfATruncatedFileThrows) {
  const std::vector<std::byte> image(100);
  const auto file = memory_file("table", image);
  Weight table{.dtype = DType::kF32, .rows = 2, .cols = 64, .file = file.get()};
  const std::vector<int32_t> ids = {1};
  EXPECT_ANY_THROW((void)ops_.embed(table, ids, 0, 64, 1.0f));
  // The value under way is gone, or the destructor of CpuOps would complain.
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they end the program
TEST_F(CpuOpsTest, RefusedMemoryLeavesItUsable) {
  const OwnedWeight rows(rng_, DType::kQ4_0, 1, 2, 64);
  const auto file = memory_file("table", rows.bytes);
  Weight table = rows;
  table.data = nullptr;
  table.file = file.get();
  Weight huge = table;
  huge.cols = int64_t{1} << 55;
  EXPECT_THROW((void)ops_.embed(huge, {}, 0, huge.cols, 1.0f), std::bad_alloc);
  const std::vector<int32_t> ids = {1};
  EXPECT_EQ(values_of(ops_, ops_.embed(table, ids, 0, 64, 1.0f)),
            Floats(rows.values.begin() + 64, rows.values.end()));
}
#endif

TEST_F(CpuOpsTest, TakeRowsCopiesRows) {
  const Value x = random(4, 3);
  const std::vector<int32_t> rows = {2, 2, 0};
  const Floats in = values_of(ops_, x), y = values_of(ops_, ops_.take_rows(x, rows));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(y[i], in[6 + i]);
    EXPECT_EQ(y[3 + i], in[6 + i]);
    EXPECT_EQ(y[6 + i], in[i]);
  }
}

TEST_F(CpuOpsTest, NoRowsGiveNoRows) {
  const Value x = ops_.input(0, 64, {});
  const OwnedWeight w(rng_, DType::kQ4_0, 1, 16, 64), f(rng_, DType::kF32, 1, 64, 64),
      one(rng_, DType::kF32, 1, 1, 64), experts(rng_, DType::kQ8_0, 4, 64, 64),
      down(rng_, DType::kQ8_0, 4, 64, 32), scales(rng_, DType::kF32, 1, 1, 4);
  const Rope rope{32, Floats(16, 0.5f)};
  EXPECT_EQ(ops_.linear(x, w)->rows, 0);
  EXPECT_EQ(ops_.linear(x, w)->cols, 16);
  EXPECT_EQ(ops_.linear(x, f)->rows, 0);
  EXPECT_EQ(ops_.gated(x, w, w)->rows, 0);
  EXPECT_EQ(ops_.rms_norm(x, &one.weight, 64, 1e-6f)->rows, 0);
  EXPECT_EQ(ops_.add_norm(x, x, one, 1e-6f)->rows, 0);
  EXPECT_EQ(ops_.rope(x, rope, {})->rows, 0);
  EXPECT_EQ(ops_.add(x, x)->rows, 0);
  EXPECT_EQ(ops_.geglu(x, x)->rows, 0);
  EXPECT_EQ(ops_.softcap(x, 30)->rows, 0);
  EXPECT_EQ(ops_.scale(x, 2)->rows, 0);
  EXPECT_EQ(ops_.take_rows(x, {})->rows, 0);
  EXPECT_EQ(ops_.embed(w, {}, 0, 64, 1)->rows, 0);
  const Route route = ops_.route(ops_.input(0, 4, {}), scales, 2);
  EXPECT_EQ(route.weights->rows, 0);
  EXPECT_EQ(ops_.experts(x, route, experts, down)->rows, 0);
  AttentionCall call;
  call.n_heads = 2;
  call.n_kv_heads = 1;
  call.head_dim = 32;
  EXPECT_EQ(ops_.attention(x, nullptr, nullptr, call)->rows, 0);
}

TEST_F(CpuOpsTest, MemoryIsRecycled) {
  const OwnedWeight w(rng_, DType::kQ4_0, 1, 128, 128);
  const Floats x = normal(rng_, 4 * 128);
  const auto step = [&] {
    Value v = ops_.input(4, 128, x);
    for (int i = 0; i < 5; ++i) v = ops_.add(v, ops_.linear(v, w));
  };
  step();
  const int64_t in_use = ops_.bytes_in_use(), at_rest = ops_.bytes_at_rest();
  for (int i = 0; i < 10; ++i) step();
  EXPECT_EQ(ops_.bytes_in_use(), in_use);
  EXPECT_EQ(ops_.bytes_at_rest(), at_rest);
}

TEST_F(CpuOpsTest, WhatIsNotFiniteStaysVisible) {
  for (DType dtype : kTypes) {
    const OwnedWeight w(rng_, dtype, 1, 24, 256);
    for (float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Floats x = normal(rng_, 2 * 256);
      x[100] = bad;
      const Floats y = values_of(ops_, ops_.linear(ops_.input(2, 256, x), w));
      for (size_t o = 0; o < 24; ++o) {
        EXPECT_FALSE(std::isfinite(y[o]) && w.values[o * 256 + 100] != 0.0f);
        EXPECT_TRUE(std::isfinite(y[24 + o]));
      }
    }
  }
}

TEST_F(CpuOpsTest, RouteAndExpertsAreTheSumOverChosenExperts) {
  const int64_t n = 6, dim = 64, ffn = 32, n_experts = 5, top_k = 2;
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kQ4_0, DType::kQ8_0}) {
    const OwnedWeight gate_up(rng_, dtype, n_experts, 2 * ffn, dim),
        down(rng_, dtype, n_experts, dim, ffn);
    const OwnedWeight scales(rng_, DType::kF32, 1, 1, n_experts);
    const Value x = random(n, dim), logits = random(n, n_experts);
    const Route route = ops_.route(logits, scales, top_k);
    const Value y = ops_.experts(x, route, gate_up, down);
    // The same from simple ops on one token and one expert at a time.
    const Floats weights = values_of(ops_, route.weights);
    for (int32_t t = 0; t < n; ++t) {
      Floats want(static_cast<size_t>(dim), 0.0f);
      const Value row = ops_.take_rows(x, {&t, 1});
      for (int64_t r = 0; r < top_k; ++r) {
        const int64_t e = (*route.ids)[static_cast<size_t>(t * top_k + r)];
        Weight g = gate_up, d = down;
        g.count = d.count = 1;
        g.data += e * 2 * ffn * g.row_size();
        d.data += e * dim * d.row_size();
        const Value hidden = ops_.gated(row, slice_rows(g, 0, ffn), slice_rows(g, ffn, ffn));
        const Floats out = values_of(ops_, ops_.linear(hidden, d));
        for (size_t i = 0; i < want.size(); ++i) {
          want[i] = std::fma(weights[static_cast<size_t>(t * top_k + r)], out[i], want[i]);
        }
      }
      EXPECT_EQ(first_bit_difference(
                    ops_.view(y).subspan(static_cast<size_t>(t * dim), want.size()), want),
                -1)
          << name_of(dtype) << " token " << t;
    }
  }
}

TEST(CpuOpsDeathTest, WrongShapesAreBugs) {
  ThreadPool pool(1);
  CpuOps ops(pool);
  Rng rng(1);
  const OwnedWeight w(rng, DType::kF32, 1, 4, 8);
  const Value x = ops.input(1, 16, normal(rng, 16));
  EXPECT_DEATH((void)ops.linear(x, w), "");
  EXPECT_DEATH((void)ops.embed(w, std::vector<int32_t>{4}, 0, 8, 1.0f), "");
  EXPECT_DEATH((void)ops.take_rows(x, std::vector<int32_t>{1}), "");
}

}  // namespace
}  // namespace carat::kernels
