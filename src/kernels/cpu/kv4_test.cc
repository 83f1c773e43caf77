// int4 pages: the encoder against a search over everything it could write, unpacking against the
// oracle, attention against int8 pages that hold the same codes, the rotation against its laws.
#include "kernels/scalar/kv4.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_ops_testing.h"
#include "kernels/kv_rotation.h"

namespace carat::kernels {
namespace {

using test::consecutive_rows;
using test::expect_same_everywhere;
using test::Floats;
using test::normal;
using test::OwnedCache;
using test::values_of;

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Encoded {
  std::vector<uint8_t> halves, blocks;
  float scale;

  explicit Encoded(const Floats& x)
      : halves(static_cast<size_t>(kv_stored_dim(KvType::kI4, static_cast<int64_t>(x.size())))),
        blocks(halves.size() / kKv4Block) {
    scale =
        scalar::kv4_encode(x.data(), static_cast<int64_t>(x.size()), halves.data(), blocks.data());
  }
  int code(size_t i) const { return scalar::kv4_byte(halves[i], blocks[i / kKv4Block]) - 128; }
  int step(size_t block) const { return (blocks[block] & 15) + 1; }
  int zero(size_t block) const { return blocks[block] >> 4; }
};

double squared_error(const Encoded& e, const Floats& x, size_t begin) {
  double sum = 0;
  for (size_t i = begin; i < std::min(x.size(), begin + kKv4Block); ++i) {
    const double d = x[i] - static_cast<double>(e.scale) * e.code(i);
    sum += d * d;
  }
  return sum;
}

// The least that any step and zero allow.
double least_error(const Floats& x, float scale, size_t begin) {
  double least = 1e300;
  for (int step = 1; step <= 16; ++step) {
    for (int zero = 0; zero < 16; ++zero) {
      double sum = 0;
      for (size_t i = begin; i < std::min(x.size(), begin + kKv4Block); ++i) {
        double nearest = 1e300;
        for (int h = 0; h < 16; ++h) {
          const int code = step * (h - zero);
          if (code < -128 || code > 127) continue;
          nearest = std::min(nearest, std::abs(x[i] - static_cast<double>(scale) * code));
        }
        sum += nearest * nearest;
      }
      least = std::min(least, sum);
    }
  }
  return least;
}

TEST(Kv4, EncoderIsCloseToTheBestThereIs) {
  Rng rng(70);
  double all = 0, best = 0;
  for (int round = 0; round < 24; ++round) {
    Floats x = normal(rng, 64, 3.0f);
    if (round % 3 == 1) x[rng.below(64)] *= 30;
    if (round % 4 == 2) {
      for (float& v : x) v = std::fabs(v);
    }
    const Encoded e(x);
    for (size_t b = 0; b < 4; ++b) {
      const double got = squared_error(e, x, 16 * b), least = least_error(x, e.scale, 16 * b);
      EXPECT_GE(got, least * 0.999);
      EXPECT_LE(got, least * 2 + 1e-9) << round << " " << b;
      all += got;
      best += least;
    }
  }
  EXPECT_LE(all, best * 1.05);
}

TEST(Kv4, CodesFitTheirByteAndStayNear) {
  Rng rng(71);
  for (int64_t n : {2, 16, 20, 31, 64, 256, 1024}) {
    for (float spread : {1e-25f, 1.0f, 1e25f}) {
      Floats x = normal(rng, n, spread);
      if (n > 20) x[0] = -9 * spread;
      const Encoded e(x);
      float max = 0;
      for (float v : x) max = std::max(max, std::fabs(v));
      EXPECT_FLOAT_EQ(e.scale, max / 120);
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t b = i / kKv4Block;
        // Computed in integers: no wrap around.
        const int code = e.step(b) * (e.halves[i] - e.zero(b));
        EXPECT_EQ(code, e.code(i));
        // Half a step, or what was cut off beyond the next finer one.
        EXPECT_LE(std::fabs(x[i] - e.scale * static_cast<float>(code)),
                  e.scale * static_cast<float>(e.step(b)) * 0.5f + e.scale * 16.0f);
      }
    }
  }
}

TEST(Kv4, ZerosAndWhatIsNotFinite) {
  const Encoded zero(Floats(32, 0.0f)), tiny(Floats(32, 1e-31f));
  for (const Encoded* e : {&zero, &tiny}) {
    EXPECT_EQ(e->scale, 0.0f);
    for (size_t i = 0; i < 32; ++i) EXPECT_EQ(e->code(i), 0);
  }
  for (float bad : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
    Floats x(40, 1.0f);
    x[33] = bad;
    const Encoded e(x);
    EXPECT_TRUE(std::isnan(e.scale));
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(e.code(i), 0);
  }
}

TEST(Kv4, UnpacksLikeTheOracle) {
  Rng rng(72);
  for (const KernelTable* table : supported_kernels()) {
    for (int64_t dim : {32, 64, 96, 256, 512, 1024}) {
      std::vector<uint8_t> codes(static_cast<size_t>(dim / 2 * kKvPageTokens)),
          blocks(static_cast<size_t>(dim / kKv4Block * kKvPageTokens));
      for (uint8_t& b : codes) b = static_cast<uint8_t>(rng.below(256));
      for (uint8_t& b : blocks) b = static_cast<uint8_t>(rng.below(256));
      const auto size = static_cast<size_t>(dim * kKvPageTokens);
      for (const bool ahead : {false, true}) {
        const uint8_t* next = ahead ? codes.data() : nullptr;
        std::vector<uint8_t> want(size + 1, 0xee), got = want;
        scalar::unpack_k4(codes.data(), blocks.data(), dim, want.data());
        table->unpack_k4(codes.data(), blocks.data(), dim, next, got.data());
        EXPECT_TRUE(got == want) << table->isa << " k " << dim;
        scalar::unpack_v4(codes.data(), blocks.data(), dim, want.data());
        table->unpack_v4(codes.data(), blocks.data(), dim, next, got.data());
        EXPECT_TRUE(got == want) << table->isa << " v " << dim;
        EXPECT_EQ(got.back(), 0xee);
      }
    }
  }
}

TEST(KvRotation, KeepsProductsAndGoesBack) {
  Rng rng(73);
  for (int64_t n : {1, 2, 20, 24, 32, 64, 256, 512, 1000}) {
    const Floats a = normal(rng, n), b = normal(rng, n);
    Floats ra(a.size()), rb(a.size()), back(a.size());
    rotate(a.data(), n, ra.data());
    rotate(b.data(), n, rb.data());
    rotate_back(ra.data(), n, back.data());
    double want = 0, got = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      want += static_cast<double>(a[i]) * b[i];
      got += static_cast<double>(ra[i]) * rb[i];
      size += static_cast<double>(a[i]) * a[i];
      EXPECT_NEAR(back[i], a[i], 1e-5);
    }
    EXPECT_NEAR(got, want, 1e-5 * size + 1e-5);
    // In place.
    Floats x = a;
    rotate(x.data(), n, x.data());
    EXPECT_EQ(x, ra);
    rotate_back(x.data(), n, x.data());
    EXPECT_EQ(x, back);
  }
}

TEST(KvRotation, SpreadsAnOutlier) {
  Floats x(256, 0.0f);
  x[37] = 16.0f;
  rotate(x.data(), 256, x.data());
  int64_t negative = 0;
  for (float v : x) {
    EXPECT_EQ(std::fabs(v), 1.0f);
    negative += v < 0;
  }
  EXPECT_EQ(negative, 128);
  // The signs are not those of the matrix alone: a constant is spread too.
  Floats ones(256, 1.0f);
  rotate(ones.data(), 256, ones.data());
  for (float v : ones) EXPECT_LT(std::fabs(v), 5.0f);
}

// K and V of n positions as an int8 page holds them: bytes and scales of the int4 page.
OwnedCache as_int8(const OwnedCache& from, int64_t n_kv_heads, int64_t dim, int64_t n) {
  OwnedCache to(KvType::kI8, n_kv_heads, dim, n);
  const int64_t dim4 = kv_stored_dim(KvType::kI4, dim), dim8 = kv_stored_dim(KvType::kI8, dim);
  const int64_t half4 = n_kv_heads * kKvPageTokens * dim4 / 2, half8 = n_kv_heads * 64 * dim8;
  const int64_t all_blocks = n_kv_heads * kKvPageTokens * dim4 / kKv4Block;
  for (size_t page = 0; page < from.pages.size(); ++page) {
    const auto* codes = reinterpret_cast<const uint8_t*>(from.pages[page]);
    const uint8_t* blocks = codes + 2 * half4;
    auto* bytes = reinterpret_cast<uint8_t*>(to.pages[page]);
    for (int64_t h = 0; h < n_kv_heads; ++h) {
      for (int64_t d = 0; d < dim; ++d) {
        for (int64_t i = 0; i < kKvPageTokens; ++i) {
          const int64_t block = (h * dim4 / kKv4Block + d / kKv4Block) * kKvPageTokens + i;
          const uint8_t k = codes[h * 32 * dim4 + k_pair_at(d, i)];
          const uint8_t v = codes[half4 + h * 32 * dim4 + v_pair_at(d, i)];
          bytes[h * 64 * dim8 + k_code_at(d, i)] =
              scalar::kv4_byte(d / 4 % 2 == 0 ? k & 15 : k >> 4, blocks[block]);
          bytes[half8 + h * 64 * dim8 + v_code_at(d, i)] =
              scalar::kv4_byte(d / 16 % 2 == 0 ? v & 15 : v >> 4, blocks[all_blocks + block]);
        }
      }
    }
    std::memcpy(bytes + 2 * half8, blocks + 2 * all_blocks,
                static_cast<size_t>(2 * n_kv_heads * kKvPageTokens * 4));
  }
  return to;
}

Floats rotated(Floats x, int64_t dim, bool back) {
  for (size_t at = 0; at < x.size(); at += static_cast<size_t>(dim)) {
    (back ? rotate_back : rotate)(x.data() + at, dim, x.data() + at);
  }
  return x;
}

class Kv4Attention : public testing::TestWithParam<KvType> {};
INSTANTIATE_TEST_SUITE_P(Kv, Kv4Attention, testing::Values(KvType::kI4, KvType::kI4R));

TEST_P(Kv4Attention, IsThatOfTheSameCodesInInt8) {
  Rng rng(74);
  for (int64_t dim : {20, 64, 80}) {
    const int64_t heads = 4, kv_heads = 2, n = 100;
    const bool turned = GetParam() == KvType::kI4R;
    const Floats q = normal(rng, n * heads * dim, 0.5f), k = normal(rng, n * kv_heads * dim),
                 v = normal(rng, n * kv_heads * dim);
    const auto rows = consecutive_rows(0, n);
    expect_same_everywhere("int4", [&](CpuOps& ops) {
      OwnedCache cache(GetParam(), kv_heads, dim, n);
      AttentionCall call{.n_heads = heads,
                         .n_kv_heads = kv_heads,
                         .head_dim = dim,
                         .window = 70,
                         .q_rows = rows,
                         .kv_rows = rows,
                         .sequences = {&cache.layer, 1}};
      const Floats got = values_of(
          ops, ops.attention(ops.input(n, heads * dim, q), ops.input(n, kv_heads * dim, k),
                             ops.input(n, kv_heads * dim, v), call));
      const OwnedCache codes = as_int8(cache, kv_heads, dim, n);
      call.kv_rows = {};
      call.sequences = {&codes.layer, 1};
      const Value turned_q = ops.input(n, heads * dim, turned ? rotated(q, dim, false) : q);
      Floats want = values_of(ops, ops.attention(turned_q, nullptr, nullptr, call));
      if (turned) want = rotated(want, dim, true);
      EXPECT_EQ(first_bit_difference(got, want), -1) << dim;

      // And near that of the vectors themselves.
      OwnedCache floats(KvType::kF32, kv_heads, dim, n);
      call.kv_rows = rows;
      call.sequences = {&floats.layer, 1};
      const Floats exact = values_of(
          ops, ops.attention(ops.input(n, heads * dim, q), ops.input(n, kv_heads * dim, k),
                             ops.input(n, kv_heads * dim, v), call));
      double error = 0, size = 0;
      for (size_t i = 0; i < got.size(); ++i) {
        error += std::pow(got[i] - exact[i], 2);
        size += std::pow(exact[i], 2);
      }
      EXPECT_LT(std::sqrt(error / size), 0.5) << dim;
      return got;
    });
  }
}

// One large channel takes the precision of its block and, through the scale, of the whole vector;
// rotated, it costs the others little.
TEST(Kv4Attention, RotationSavesKeysWithAnOutlier) {
  Rng rng(75);
  const int64_t dim = 256, n = 60;
  Floats q = normal(rng, n * dim, 0.2f), k = normal(rng, n * dim), v = normal(rng, n * dim);
  for (int64_t t = 0; t < n; ++t) {
    k[static_cast<size_t>(t * dim + 9)] *= 30;
    q[static_cast<size_t>(t * dim + 9)] /= 30;
  }
  const auto rows = consecutive_rows(0, n);
  ThreadPool pool(1);
  CpuOps ops(pool);
  const auto run = [&](KvType type) {
    OwnedCache cache(type, 1, dim, n);
    const AttentionCall call{.n_heads = 1,
                             .n_kv_heads = 1,
                             .head_dim = dim,
                             .window = 0,
                             .q_rows = rows,
                             .kv_rows = rows,
                             .sequences = {&cache.layer, 1}};
    return values_of(
        ops, ops.attention(ops.input(n, dim, q), ops.input(n, dim, k), ops.input(n, dim, v), call));
  };
  const Floats exact = run(KvType::kF32);
  const auto error = [&](KvType type) {
    const Floats got = run(type);
    double sum = 0, size = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      sum += std::pow(got[i] - exact[i], 2);
      size += std::pow(exact[i], 2);
    }
    return std::sqrt(sum / size);
  };
  const double plain = error(KvType::kI4), turned = error(KvType::kI4R);
  EXPECT_LT(turned, 0.6 * plain) << turned << " " << plain;
  EXPECT_LT(error(KvType::kI8), turned);
}

TEST(Kv4AttentionDeathTest, StatedScalesBelongToInt8) {
  const int64_t dim = 32;
  const auto rows = consecutive_rows(0, 1);
  OwnedCache cache(KvType::kI4, 1, dim, 64);
  ThreadPool pool(1);
  CpuOps ops(pool);
  const Value x = ops.input(1, dim, Floats(32, 1.0f));
  const AttentionCall call{.n_heads = 1,
                           .n_kv_heads = 1,
                           .head_dim = dim,
                           .k_scale = 0.1f,
                           .v_scale = 0.1f,
                           .q_rows = rows,
                           .kv_rows = rows,
                           .sequences = {&cache.layer, 1}};
  EXPECT_DEATH((void)ops.attention(x, x, x, call), "is_kv4");
}

}  // namespace
}  // namespace carat::kernels
