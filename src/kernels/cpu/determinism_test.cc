// The promises of ops.h: the bits of a row do not depend on the rows that share the call, on the
// number of threads, on fused or simple ops, nor (of CpuOps) on the table of kernels.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_ops_testing.h"
#include "kernels/scalar/attention.h"
#include "kernels/testing/quantized.h"
#include "tensor/compare.h"

namespace carat::kernels {
namespace {

using test::consecutive_rows;
using test::expect_same_everywhere;
using test::Floats;
using test::normal;
using test::OwnedCache;
using test::OwnedWeight;
using test::PackedWeight;
using test::values_of;

constexpr DType kTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16,
                            DType::kQ4_0, DType::kQ8_0, DType::kQ6_K};

TEST(Determinism, LinearOnThreadsAndTables) {
  Rng rng(31);
  for (DType dtype : kTypes) {
    const OwnedWeight w(rng, dtype, 1, 203, 512);
    for (int64_t n : {1, 2, 5, 11}) {
      const Floats x = normal(rng, n * 512);
      expect_same_everywhere(std::string("linear ") + name_of(dtype), [&](CpuOps& ops) {
        return values_of(ops, ops.linear(ops.input(n, 512, x), w));
      });
    }
  }
}

TEST(Determinism, LinearRowsAloneAndTogether) {
  Rng rng(32);
  ThreadPool pool(2);
  CpuOps ops(pool);
  for (DType dtype : kTypes) {
    const OwnedWeight w(rng, dtype, 1, 45, 256 * 9);  // more columns than one panel
    const int64_t n = 23;
    const Value x = ops.input(n, w.weight.cols, normal(rng, n * w.weight.cols));
    const Floats all = values_of(ops, ops.linear(x, w));
    for (int64_t size : {1, 2, 3, 4, 5, 7}) {
      for (int32_t begin = 0; begin + size <= n; begin += 6) {
        std::vector<int32_t> rows;
        for (int32_t r = 0; r < size; ++r) rows.push_back(begin + r);
        const Floats part = values_of(ops, ops.linear(ops.take_rows(x, rows), w));
        const std::span<const float> want(all.data() + begin * 45, part.size());
        ASSERT_EQ(first_bit_difference(part, want), -1) << name_of(dtype) << " " << size;
      }
    }
  }
}

// Every quantized type, odd shapes, one token to many: rows packed on the way and tiles, any number
// of threads and any table have the bits of one call of the scalar kernel.
TEST(Determinism, EveryTypeInRowsAndInTiles) {
  Rng rng(41);
  for (DType dtype : test::tiled_types()) {
    const int64_t block = info(dtype).block_elements;
    for (int64_t most : {1, 4, 70}) {
      const int64_t rows = 1 + static_cast<int64_t>(rng.below(300));
      const int64_t cols = block * (1 + static_cast<int64_t>(rng.below(1024 / block)));
      const int64_t n = most == 1 ? 1 : 2 + static_cast<int64_t>(rng.below(most - 1));
      const PackedWeight w(rng, dtype, 1, rows, cols);
      const Floats x = normal(rng, n * cols);
      test::Quantized q(n, cols);
      generic_kernels().quantize_rows(x.data(), q.rows);
      Floats want(static_cast<size_t>(n * rows));
      generic_kernels().linear_tiles[static_cast<int>(*tile_format(dtype))](
          {w.tiles.data, w.tiles.tile_size(), rows, cols}, q.rows, {want.data(), rows});
      const std::string what = std::string(name_of(dtype)) + " " + std::to_string(rows) + "x" +
                               std::to_string(cols) + ", " + std::to_string(n) + " tokens";
      expect_same_everywhere(what, [&](CpuOps& ops) {
        const Value in = ops.input(n, cols, x);
        const Floats tiles = values_of(ops, ops.linear(in, w.tiles));
        EXPECT_EQ(first_bit_difference(tiles, want), -1) << what;
        EXPECT_EQ(first_bit_difference(values_of(ops, ops.linear(in, w.rows)), want), -1) << what;
        const auto last = static_cast<int32_t>(n - 1);
        const Floats alone = values_of(ops, ops.linear(ops.take_rows(in, {&last, 1}), w.tiles));
        EXPECT_EQ(first_bit_difference(alone, std::span(want).last(alone.size())), -1) << what;
        return tiles;
      });
    }
  }
}

TEST(Determinism, SlicesOfTiles) {
  Rng rng(42);
  const PackedWeight w(rng, DType::kQ4_0, 1, 100, 64);
  const Floats x = normal(rng, 3 * 64);
  for (int64_t begin : {0, 16, 64}) {
    expect_same_everywhere("slice", [&](CpuOps& ops) {
      const Value in = ops.input(3, 64, x);
      const Floats got = values_of(ops, ops.linear(in, slice_rows(w.tiles, begin, 21)));
      EXPECT_EQ(got, values_of(ops, ops.linear(in, slice_rows(w.rows, begin, 21))));
      return got;
    });
  }
}

TEST(Determinism, GatedInTiles) {
  Rng rng(43);
  for (DType dtype : test::tiled_types()) {
    for (int64_t width : {16, 100, 288}) {
      const PackedWeight gate(rng, dtype, 1, width, 256), up(rng, DType::kQ8_0, 1, width, 256);
      const int64_t n = width == 100 ? 1 : 9;
      const Floats x = normal(rng, n * 256);
      expect_same_everywhere(std::string("gated ") + name_of(dtype), [&](CpuOps& ops) {
        const Value in = ops.input(n, 256, x);
        const Value fused = ops.gated(in, gate.tiles, up.tiles);
        const Floats got = values_of(ops, fused);
        EXPECT_EQ(got, values_of(ops, ops.Ops::gated(in, gate.rows, up.rows)));
        if (width % 32 != 0) return got;
        // What the fused call rounded for the next product is what a product rounds itself.
        Rng down_rng(44);
        const PackedWeight down(down_rng, DType::kQ4_0, 1, 40, width);
        const Floats next = values_of(ops, ops.linear(fused, down.tiles));
        EXPECT_EQ(next, values_of(ops, ops.linear(ops.input(n, width, got), down.tiles)));
        return next;
      });
    }
  }
}

TEST(Determinism, FusedAndSimple) {
  Rng rng(33);
  const int64_t n = 5, dim = 256, width = 144;
  const Floats x = normal(rng, n * dim), y = normal(rng, n * dim, 30.0f);
  const OwnedWeight norm(rng, DType::kF32, 1, 1, dim);
  for (DType gate_type : kTypes) {
    for (DType up_type : {gate_type, DType::kF16, DType::kQ8_0}) {
      const OwnedWeight gate(rng, gate_type, 1, width, dim), up(rng, up_type, 1, width, dim);
      expect_same_everywhere("gated", [&](CpuOps& ops) {
        const Value a = ops.input(n, dim, x);
        const Floats fused = values_of(ops, ops.gated(a, gate, up));
        EXPECT_EQ(fused, values_of(ops, ops.Ops::gated(a, gate, up)));
        return fused;
      });
    }
  }
  expect_same_everywhere("add_norm", [&](CpuOps& ops) {
    const Value a = ops.input(n, dim, x), b = ops.input(n, dim, y);
    const Floats fused = values_of(ops, ops.add_norm(a, b, norm, 1e-6f));
    EXPECT_EQ(fused, values_of(ops, ops.Ops::add_norm(a, b, norm, 1e-6f)));
    return fused;
  });
}

TEST(Determinism, RowOps) {
  Rng rng(34);
  const int64_t n = 150, cols = 512;
  const Floats x = normal(rng, n * cols), y = normal(rng, n * cols);
  const OwnedWeight norm(rng, DType::kF32, 1, 1, 64);
  Rope rope{64, {}};
  for (int i = 0; i < 32; ++i) rope.inverse_frequency.push_back(std::pow(0.7f, i));
  const std::vector<RowRef> rows = consecutive_rows(17, 17 + n);
  expect_same_everywhere("row ops", [&](CpuOps& ops) {
    const Value a = ops.input(n, cols, x), b = ops.input(n, cols, y);
    Value v = ops.rope(ops.rms_norm(a, &norm.weight, 64, 1e-6f), rope, rows);
    v = ops.softcap(ops.geglu(v, ops.scale(ops.add(v, b), 0.7f)), 5.0f);
    return values_of(ops, v);
  });
}

struct AttentionCase {
  int64_t n, heads, kv_heads, dim, window;
};

// Prefill in chunks and then every query alone; all with the bits of one call for everything.
void check_attention(const AttentionCase& c, KvType type) {
  Rng rng(35);
  const int64_t q_cols = c.heads * c.dim, kv_cols = c.kv_heads * c.dim;
  const Floats q = normal(rng, c.n * q_cols, 0.4f), k = normal(rng, c.n * kv_cols),
               v = normal(rng, c.n * kv_cols);
  // chunk 0: all but the last five positions, then those one by one.
  const auto run = [&](CpuOps& ops, int64_t chunk) {
    OwnedCache cache(type, c.kv_heads, c.dim, c.n);
    Floats out;
    for (int64_t begin = 0, end; begin < c.n; begin = end) {
      end = chunk > 0 ? begin + chunk : begin == 0 ? c.n - 5 : begin + 1;
      end = std::min(end, c.n);
      const int64_t n = end - begin;
      const std::vector<RowRef> rows = consecutive_rows(begin, end);
      const AttentionCall call{.n_heads = c.heads,
                               .n_kv_heads = c.kv_heads,
                               .head_dim = c.dim,
                               .window = c.window,
                               .q_rows = rows,
                               .kv_rows = rows,
                               .sequences = {&cache.layer, 1}};
      const auto part = [&](const Floats& x, int64_t cols) {
        return ops.input(
            n, cols,
            std::span(x).subspan(static_cast<size_t>(begin * cols), static_cast<size_t>(n * cols)));
      };
      const Floats y =
          values_of(ops, ops.attention(part(q, q_cols), part(k, kv_cols), part(v, kv_cols), call));
      out.insert(out.end(), y.begin(), y.end());
      // What the window has left may leave the cache.
      for (size_t p = 0; c.window > 0 && p < cache.pages.size(); ++p) {
        if (static_cast<int64_t>(p + 1) * kKvPageTokens <= end - c.window + 1) {
          cache.pages[p] = nullptr;
        }
      }
    }
    return out;
  };
  for (int64_t chunk : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{64}, c.n}) {
    if (chunk > 0 && c.n > 300) continue;
    const std::string what = "attention in chunks of " + std::to_string(chunk);
    Floats whole;
    {
      ThreadPool pool(1);
      CpuOps ops(pool);
      whole = run(ops, c.n);
    }
    expect_same_everywhere(what, [&](CpuOps& ops) {
      const Floats got = run(ops, chunk);
      EXPECT_EQ(first_bit_difference(got, whole), -1) << what;
      return got;
    });
  }
  if (type == KvType::kF32) {
    std::vector<int32_t> positions;
    for (int32_t t = 0; t < c.n; ++t) positions.push_back(t);
    Floats want(q.size()), scratch(static_cast<size_t>(kKvPageTokens + c.dim));
    scalar::attention(q.data(), positions.data(), c.n, k.data(), v.data(), c.heads, c.kv_heads,
                      c.dim, c.window, scratch.data(), want.data());
    ThreadPool pool(2);
    CpuOps ops(pool);
    EXPECT_EQ(first_bit_difference(run(ops, c.n), want), -1);
  }
}

class DeterminismOfAttention : public testing::TestWithParam<KvType> {};
INSTANTIATE_TEST_SUITE_P(Kv, DeterminismOfAttention,
                         testing::Values(KvType::kF32, KvType::kF16, KvType::kI8, KvType::kI4,
                                         KvType::kI4R));

TEST_P(DeterminismOfAttention, GlobalGrouped) { check_attention({140, 4, 1, 32, 0}, GetParam()); }
TEST_P(DeterminismOfAttention, LocalOneHeadEach) {
  check_attention({150, 2, 2, 16, 70}, GetParam());
}
TEST_P(DeterminismOfAttention, LocalShortWindow) {
  check_attention({135, 6, 2, 24, 5}, GetParam());
}
TEST_P(DeterminismOfAttention, OddHeadSize) { check_attention({70, 3, 1, 20, 0}, GetParam()); }
TEST_P(DeterminismOfAttention, LongGlobal) { check_attention({330, 4, 1, 64, 0}, GetParam()); }

// Several sequences in one call, of different lengths and in mixed order, against each alone.
TEST_P(DeterminismOfAttention, SequencesTogetherAndAlone) {
  Rng rng(36);
  const int64_t heads = 4, kv_heads = 2, dim = 32, lengths[] = {200, 65, 1};
  expect_same_everywhere("batch", [&](CpuOps& ops) {
    std::vector<OwnedCache> caches;
    std::vector<KvLayer> layers;
    Rng data(37);
    const auto call_for = [&](const std::vector<RowRef>& q, const std::vector<RowRef>& kv) {
      return AttentionCall{.n_heads = heads,
                           .n_kv_heads = kv_heads,
                           .head_dim = dim,
                           .window = 100,
                           .q_rows = q,
                           .kv_rows = kv,
                           .sequences = layers};
    };
    for (int64_t n : lengths) caches.emplace_back(GetParam(), kv_heads, dim, n);
    for (const OwnedCache& c : caches) layers.push_back(c.layer);
    for (int32_t s = 0; s < 3; ++s) {
      const auto rows = consecutive_rows(0, lengths[s], s);
      const int64_t n = lengths[s];
      (void)ops.attention(ops.input(0, heads * dim, {}),
                          ops.input(n, kv_heads * dim, normal(data, n * kv_heads * dim)),
                          ops.input(n, kv_heads * dim, normal(data, n * kv_heads * dim)),
                          call_for({}, rows));
    }
    const std::vector<RowRef> rows = {{2, 0}, {0, 199}, {1, 64}, {1, 3}, {0, 63}, {0, 64}};
    const Value q = ops.input(6, heads * dim, normal(data, 6 * heads * dim));
    const Floats together = values_of(ops, ops.attention(q, nullptr, nullptr, call_for(rows, {})));
    for (int32_t t = 0; t < 6; ++t) {
      const std::vector<RowRef> row = {rows[static_cast<size_t>(t)]};
      const Floats alone = values_of(
          ops, ops.attention(ops.take_rows(q, {&t, 1}), nullptr, nullptr, call_for(row, {})));
      const std::span<const float> want(together.data() + t * heads * dim, alone.size());
      EXPECT_EQ(first_bit_difference(alone, want), -1) << "row " << t;
    }
    return together;
  });
}

// Random shapes: rows of several sequences in one call, in any order, together and alone.
TEST_P(DeterminismOfAttention, RandomShapes) {
  Rng shapes(40);
  for (int round = 0; round < 8; ++round) {
    const int64_t kv_heads = 1 + static_cast<int64_t>(shapes.below(3));
    const int64_t heads = kv_heads * (1 + static_cast<int64_t>(shapes.below(5)));
    const int64_t dim = 2 * (1 + static_cast<int64_t>(shapes.below(40)));
    const int64_t window = shapes.below(2) == 0 ? 0 : 1 + static_cast<int64_t>(shapes.below(150));
    std::vector<int64_t> lengths;
    std::vector<RowRef> rows;
    for (int32_t s = 0; s < 3; ++s) {
      lengths.push_back(1 + static_cast<int64_t>(shapes.below(260)));
      for (uint64_t n = shapes.below(12); n > 0; --n) {
        const auto below = static_cast<uint64_t>(lengths.back());
        rows.push_back({s, static_cast<int32_t>(shapes.below(below))});
      }
    }
    rows.push_back({0, static_cast<int32_t>(lengths[0] - 1)});
    for (size_t i = rows.size(); i > 1; --i) std::swap(rows[i - 1], rows[shapes.below(i)]);
    expect_same_everywhere("round " + std::to_string(round), [&](CpuOps& ops) {
      Rng data(41);
      std::vector<OwnedCache> caches;
      std::vector<KvLayer> layers;
      for (int64_t n : lengths) caches.emplace_back(GetParam(), kv_heads, dim, n);
      for (const OwnedCache& c : caches) layers.push_back(c.layer);
      AttentionCall call{.n_heads = heads,
                         .n_kv_heads = kv_heads,
                         .head_dim = dim,
                         .window = window,
                         .q_rows = {},
                         .kv_rows = {},
                         .sequences = layers};
      for (int32_t s = 0; s < 3; ++s) {
        const int64_t n = lengths[static_cast<size_t>(s)];
        const auto kv = consecutive_rows(0, n, s);
        call.kv_rows = kv;
        const Floats k = normal(data, n * kv_heads * dim), v = normal(data, n * kv_heads * dim);
        (void)ops.attention(ops.input(0, heads * dim, {}), ops.input(n, kv_heads * dim, k),
                            ops.input(n, kv_heads * dim, v), call);
      }
      const int64_t n = static_cast<int64_t>(rows.size());
      const Value q = ops.input(n, heads * dim, normal(data, n * heads * dim));
      call.kv_rows = {};
      call.q_rows = rows;
      const Floats together = values_of(ops, ops.attention(q, nullptr, nullptr, call));
      for (int32_t t = 0; t < n; t += 3) {
        call.q_rows = std::span(rows).subspan(static_cast<size_t>(t), 1);
        const Floats alone =
            values_of(ops, ops.attention(ops.take_rows(q, {&t, 1}), nullptr, nullptr, call));
        const std::span<const float> want(together.data() + t * heads * dim, alone.size());
        EXPECT_EQ(first_bit_difference(alone, want), -1) << "round " << round << " row " << t;
      }
      return together;
    });
  }
}

// So many keys and queries that their weights do not fit one wave.
TEST(Determinism, AttentionInWaves) {
  Rng rng(42);
  const int64_t heads = 8, dim = 16, n = 6000, rows = 16;
  const Floats q = normal(rng, rows * heads * dim), k = normal(rng, n * dim),
               v = normal(rng, n * dim);
  const auto all = consecutive_rows(0, n), last = consecutive_rows(n - rows, n);
  const auto run = [&](CpuOps& ops, KvType type) {
    OwnedCache cache(type, 1, dim, n);
    const AttentionCall call{.n_heads = heads,
                             .n_kv_heads = 1,
                             .head_dim = dim,
                             .window = 0,
                             .q_rows = last,
                             .kv_rows = all,
                             .sequences = {&cache.layer, 1}};
    return values_of(ops, ops.attention(ops.input(rows, heads * dim, q), ops.input(n, dim, k),
                                        ops.input(n, dim, v), call));
  };
  expect_same_everywhere("waves", [&](CpuOps& ops) { return run(ops, KvType::kI8); });
  expect_same_everywhere("waves", [&](CpuOps& ops) { return run(ops, KvType::kI4R); });
}

// A unit of rows far apart must not read the pages between them, which may be gone.
TEST(Determinism, PagesBetweenWindowsAreNotRead) {
  Rng rng(38);
  OwnedCache cache(KvType::kF16, 1, 16, 400);
  ThreadPool pool(1);
  CpuOps ops(pool);
  const auto all = consecutive_rows(0, 400);
  const std::vector<RowRef> rows = {{0, 10}, {0, 390}};
  AttentionCall call{.n_heads = 2,
                     .n_kv_heads = 1,
                     .head_dim = 16,
                     .window = 20,
                     .q_rows = {},
                     .kv_rows = all,
                     .sequences = {&cache.layer, 1}};
  (void)ops.attention(ops.input(0, 32, {}), ops.input(400, 16, normal(rng, 400 * 16)),
                      ops.input(400, 16, normal(rng, 400 * 16)), call);
  for (size_t p = 1; p < 5; ++p) cache.pages[p] = nullptr;
  call.q_rows = rows;
  const Floats y =
      values_of(ops, ops.attention(ops.input(2, 32, normal(rng, 64)), nullptr, nullptr, call));
  for (float x : y) EXPECT_TRUE(std::isfinite(x));
}

TEST(Determinism, Experts) {
  Rng rng(39);
  const int64_t n = 21, dim = 256, ffn = 64, n_experts = 6, top_k = 3;
  for (DType dtype : {DType::kF32, DType::kQ4_0, DType::kQ8_0}) {
    const OwnedWeight gate_up(rng, dtype, n_experts, 2 * ffn, dim),
        down(rng, dtype, n_experts, dim, ffn);
    const OwnedWeight scales(rng, DType::kF32, 1, 1, n_experts);
    const Floats x = normal(rng, n * dim), logits = normal(rng, n * n_experts);
    expect_same_everywhere(std::string("experts ") + name_of(dtype), [&](CpuOps& ops) {
      const Value in = ops.input(n, dim, x), l = ops.input(n, n_experts, logits);
      const Floats all =
          values_of(ops, ops.experts(in, ops.route(l, scales, top_k), gate_up, down));
      for (int32_t t = 0; t < n; t += 5) {
        const Value row = ops.take_rows(in, {&t, 1});
        const Route route = ops.route(ops.take_rows(l, {&t, 1}), scales, top_k);
        const Floats alone = values_of(ops, ops.experts(row, route, gate_up, down));
        EXPECT_EQ(first_bit_difference(
                      alone, std::span(all).subspan(static_cast<size_t>(t * dim), alone.size())),
                  -1);
      }
      return all;
    });
  }
}

// Tiles or rows, and each pair by hand: the sum over ranks of weight * down(geglu(gate x, up x)).
TEST(Determinism, ExpertsInTiles) {
  Rng rng(45);
  const int64_t n = 13, dim = 256, ffn = 256, n_experts = 5, top_k = 2;
  const OwnedWeight scales(rng, DType::kF32, 1, 1, n_experts);
  const Floats x = normal(rng, n * dim), logits = normal(rng, n * n_experts);
  for (DType dtype : test::tiled_types()) {
    const PackedWeight gate_up(rng, dtype, n_experts, 2 * ffn, dim),
        down(rng, dtype, n_experts, dim, ffn);
    expect_same_everywhere(std::string("experts ") + name_of(dtype), [&](CpuOps& ops) {
      const Value in = ops.input(n, dim, x), l = ops.input(n, n_experts, logits);
      const Route route = ops.route(l, scales, top_k);
      const Floats got = values_of(ops, ops.experts(in, route, gate_up.tiles, down.tiles));
      EXPECT_EQ(got, values_of(ops, ops.experts(in, route, gate_up.rows, down.rows)));
      for (int32_t t = 0; t < n; t += 6) {
        const Value row = ops.take_rows(in, {&t, 1});
        Floats want(static_cast<size_t>(dim), 0.0f);
        for (int64_t r = 0; r < top_k; ++r) {
          const auto slot = static_cast<size_t>(t * top_k + r);
          Weight both = gate_up.tiles, second = down.tiles;
          both.count = second.count = 1;
          both.data += (*route.ids)[slot] * gate_up.tiles.matrix_size();
          second.data += (*route.ids)[slot] * down.tiles.matrix_size();
          const Value hidden = ops.gated(row, slice_rows(both, 0, ffn), slice_rows(both, ffn, ffn));
          const Floats y = values_of(ops, ops.linear(hidden, second));
          ops.table().multiply_add(y.data(), dim, ops.view(route.weights)[slot], want.data());
        }
        EXPECT_EQ(first_bit_difference(
                      want, std::span(got).subspan(static_cast<size_t>(t * dim), want.size())),
                  -1);
      }
      return got;
    });
  }
}

}  // namespace
}  // namespace carat::kernels
