// Gradients of every op against 4-point finite differences in double, and float against double.
#include "train/tape.h"

#include <gtest/gtest.h>

#include <cmath>

#include "train/tape_test_util.h"

namespace carat::train {
namespace {

using kernels::Ops;
using kernels::RowRef;
using kernels::Value;
using kernels::Weight;
using testing::Bench;
using testing::rows_of;
using testing::table_rows;

using Build = std::function<Value(Ops&, const std::vector<Weight>&)>;

template <class T>
double run(const Bench& bench, const std::vector<T>& values, const Build& build,
           std::vector<T>* gradients) {
  ThreadPool pool(1);
  Tape<T> tape(bench.layout, values.data(), gradients ? gradients->data() : nullptr, pool);
  const Value y = build(tape, bench.weights);
  std::vector<T> direction(static_cast<size_t>(y->rows * y->cols));
  Rng rng(77);
  for (T& x : direction) x = static_cast<T>(static_cast<float>(rng.normal()));
  const double sum = tape.project(y, direction, 1.0);
  if (gradients) tape.backward();
  return sum;
}

double cosine(const std::vector<float>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += a[i] * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += b[i] * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

void check_gradients(const Bench& bench, const Build& build) {
  std::vector<double> g(bench.values.size(), 0.0);
  run<double>(bench, bench.values, build, &g);
  double largest = 0;
  for (const double x : g) largest = std::max(largest, std::fabs(x));
  ASSERT_GT(largest, 0);
  std::vector<double> v = bench.values;
  const double h = 2e-3;
  for (const auto& e : bench.layout.entries()) {
    for (int64_t i = e.offset; i < e.offset + e.size; ++i) {
      const auto at = [&](double delta) {
        const double keep = v[i];
        v[i] = keep + delta;
        const double f = run<double>(bench, v, build, nullptr);
        v[i] = keep;
        return f;
      };
      const double fd = (8 * (at(h / 2) - at(-h / 2)) - (at(h) - at(-h))) / (6 * h);
      // Relative to the element, or to 1 % of the largest where the element itself is tiny.
      const double scale = std::max({std::fabs(fd), std::fabs(g[i]), 0.01 * largest});
      ASSERT_NEAR(g[i], fd, 1e-6 * scale) << "parameter element " << i;
    }
  }
  std::vector<float> gf(g.size(), 0.0f);
  run<float>(bench, testing::cast<float>(bench.values), build, &gf);
  EXPECT_GT(cosine(gf, g), 0.99999);
}

TEST(TapeGradients, Linear) {
  check_gradients(Bench({{1, 5, 7}, {1, 9, 7}}),
                  [](Ops& ops, const auto& w) { return ops.linear(table_rows(ops, w[0]), w[1]); });
}

TEST(TapeGradients, LinearWithSliceOfRowsUsedTwice) {
  check_gradients(Bench({{1, 4, 6}, {1, 8, 6}}), [](Ops& ops, const auto& w) {
    const Value x = table_rows(ops, w[0]);
    return ops.add(ops.linear(x, kernels::slice_rows(w[1], 2, 3)),
                   ops.linear(x, kernels::slice_rows(w[1], 4, 3)));
  });
}

TEST(TapeGradients, EmbedColumnsAndRepeatedIds) {
  check_gradients(Bench({{1, 6, 12}}), [](Ops& ops, const auto& w) {
    const std::vector<int32_t> ids = {3, 1, 3, 5, 3};
    return ops.embed(w[0], ids, 4, 6, 2.5f);
  });
}

TEST(TapeGradients, TakeRows) {
  check_gradients(Bench({{1, 6, 5}}), [](Ops& ops, const auto& w) {
    const std::vector<int32_t> rows = {0, 2, 2, 5};
    return ops.take_rows(table_rows(ops, w[0]), rows);
  });
}

TEST(TapeGradients, RmsNorm) {
  check_gradients(Bench({{1, 5, 21}, {1, 1, 21}}), [](Ops& ops, const auto& w) {
    return ops.rms_norm(table_rows(ops, w[0]), &w[1], 21, 1e-3f);
  });
  // Per head, and without weights.
  check_gradients(Bench({{1, 3, 40}, {1, 1, 20}}), [](Ops& ops, const auto& w) {
    return ops.rms_norm(table_rows(ops, w[0]), &w[1], 20, 1e-6f);
  });
  check_gradients(Bench({{1, 3, 40}}), [](Ops& ops, const auto& w) {
    return ops.rms_norm(table_rows(ops, w[0]), nullptr, 20, 1e-6f);
  });
}

TEST(TapeGradients, Rope) {
  const kernels::Rope rope{8, {1.0f, 0.3f, 0.01f, 0.0f}};
  check_gradients(Bench({{1, 6, 16}}), [&](Ops& ops, const auto& w) {
    return ops.rope(table_rows(ops, w[0]), rope, rows_of(2, 3));
  });
}

TEST(TapeGradients, Elementwise) {
  check_gradients(Bench({{1, 4, 37}, {1, 4, 37}, {1, 1, 1}}, 3), [](Ops& ops, const auto& w) {
    const Value a = table_rows(ops, w[0]), b = table_rows(ops, w[1]);
    const Value product = ops.geglu(a, b);
    return ops.softcap(ops.scale(ops.add(ops.scale_by(product, w[2]), ops.add(a, a)), 1.5f), 3.0f);
  });
}

TEST(TapeGradients, FusedDefaults) {
  check_gradients(Bench({{1, 4, 10}, {1, 6, 10}, {1, 6, 10}, {1, 10, 6}, {1, 1, 10}}),
                  [](Ops& ops, const auto& w) {
                    const Value x = table_rows(ops, w[0]);
                    const Value y = ops.linear(ops.gated(x, w[1], w[2]), w[3]);
                    return ops.add_norm(x, y, w[4], 1e-6f);
                  });
}

// Two sequences; 4 query heads over 2 K/V heads; `keep` query rows (all if empty).
Value attend(Ops& ops, const std::vector<Weight>& w, int64_t window, int32_t n,
             std::vector<int32_t> keep) {
  const auto rows = rows_of(2, n);
  Value q = table_rows(ops, w[0]);
  std::vector<RowRef> q_rows = rows;
  if (!keep.empty()) {
    q = ops.take_rows(q, keep);
    q_rows.clear();
    for (const int32_t i : keep) q_rows.push_back(rows[static_cast<size_t>(i)]);
  }
  kernels::AttentionCall call;
  call.n_heads = 4;
  call.n_kv_heads = 2;
  call.head_dim = 4;
  call.window = window;
  call.q_rows = q_rows;
  call.kv_rows = rows;
  return ops.attention(q, table_rows(ops, w[1]), table_rows(ops, w[2]), call);
}

TEST(TapeGradients, Attention) {
  const Bench bench({{1, 10, 16}, {1, 10, 8}, {1, 10, 8}}, 5, 0.7);
  for (const int64_t window : {0, 3, 1}) {
    check_gradients(bench, [&](Ops& ops, const auto& w) { return attend(ops, w, window, 5, {}); });
    check_gradients(bench, [&](Ops& ops, const auto& w) {
      return attend(ops, w, window, 5, {2, 4, 8, 9});
    });
  }
}

TEST(TapeGradients, AttentionSharedByALaterLayer) {
  check_gradients(Bench({{1, 6, 16}, {1, 6, 8}, {1, 6, 8}, {1, 16, 16}}, 6, 0.7),
                  [](Ops& ops, const auto& w) {
                    const Value first = attend(ops, w, 0, 3, {});
                    const auto rows = rows_of(2, 3);
                    kernels::AttentionCall call;
                    call.n_heads = 4;
                    call.n_kv_heads = 2;
                    call.head_dim = 4;
                    call.window = 2;
                    call.q_rows = rows;
                    return ops.attention(ops.linear(first, w[3]), nullptr, nullptr, call);
                  });
}

TEST(TapeGradients, AttentionInSeveralBlocks) {
  // More rows than a block holds: every block's share of dK and dV counts.
  const Bench bench({{1, 300, 16}, {1, 300, 8}, {1, 300, 8}}, 8, 0.7);
  for (const int64_t window : {0, 40}) {
    const Build build = [&](Ops& ops, const auto& w) { return attend(ops, w, window, 150, {}); };
    std::vector<double> g(bench.values.size(), 0.0);
    run<double>(bench, bench.values, build, &g);
    Rng rng(4);
    std::vector<double> direction(g.size()), v(g.size());
    for (double& x : direction) x = rng.normal();
    const auto at = [&](double h) {
      for (size_t i = 0; i < v.size(); ++i) v[i] = bench.values[i] + h * direction[i];
      return run<double>(bench, v, build, nullptr);
    };
    double want = 0;
    for (size_t i = 0; i < g.size(); ++i) want += g[i] * direction[i];
    const double h = 1e-3;
    const double fd = (8 * (at(h / 2) - at(-h / 2)) - (at(h) - at(-h))) / (6 * h);
    EXPECT_NEAR(fd, want, 1e-6 * std::fabs(want));
    std::vector<float> gf(g.size(), 0.0f);
    run<float>(bench, testing::cast<float>(bench.values), build, &gf);
    EXPECT_GT(cosine(gf, g), 0.99999);
  }
}

TEST(TapeGradients, RouteAndExperts) {
  // Rows of x, router [5, 6], expert scales, gate and up [5][2 * 3, 6], down [5][6, 3].
  check_gradients(Bench({{1, 7, 6}, {1, 5, 6}, {1, 1, 5}, {5, 6, 6}, {5, 6, 3}}, 9, 0.6),
                  [](Ops& ops, const auto& w) {
                    const Value x = table_rows(ops, w[0]);
                    const kernels::Route route = ops.route(ops.linear(x, w[1]), w[2], 2);
                    return ops.experts(x, route, w[3], w[4]);
                  });
}

TEST(TapeGradients, CrossEntropyThroughTheSoftcap) {
  const Bench bench({{1, 4, 50}}, 10, 3.0);
  const std::vector<int32_t> targets = {3, -1, 49, 0};
  ThreadPool pool(1);
  const auto loss = [&](const std::vector<double>& v, std::vector<double>* g) {
    Tape<double> tape(bench.layout, v.data(), g ? g->data() : nullptr, pool);
    const Value y = tape.softcap(table_rows(tape, bench.weights[0]), 4.0f);
    const double sum = tape.cross_entropy(y, targets, 0.5);
    if (g) tape.backward();
    return 0.5 * sum;
  };
  std::vector<double> g(bench.values.size(), 0.0), v = bench.values;
  loss(v, &g);
  for (size_t i = 0; i < 200; ++i) {
    const double h = 1e-3, keep = v[i];
    const auto at = [&](double d) {
      v[i] = keep + d;
      return loss(v, nullptr);
    };
    const double fd = (8 * (at(h / 2) - at(-h / 2)) - (at(h) - at(-h))) / (6 * h);
    v[i] = keep;
    ASSERT_NEAR(g[i], fd, 1e-9 + 1e-6 * std::fabs(fd)) << i;
  }
}

TEST(TapeGradients, DistillationThroughTheSoftcap) {
  const Bench bench({{1, 3, 37}, {1, 3, 37}}, 11, 3.0);
  ThreadPool pool(1);
  const double* teacher = bench.values.data() + bench.layout[1].offset;
  const auto loss = [&](const std::vector<double>& v, std::vector<double>* g) {
    Tape<double> tape(bench.layout, v.data(), g ? g->data() : nullptr, pool);
    const Value y = tape.softcap(table_rows(tape, bench.weights[0]), 4.0f);
    const double sum = tape.distillation(y, teacher, 0.5);
    if (g) tape.backward();
    return 0.5 * sum;
  };
  std::vector<double> g(bench.values.size(), 0.0), v = bench.values;
  const double at_start = loss(v, &g);
  // Against the definition.
  double kl = 0;
  for (int t = 0; t < 3; ++t) {
    double zp = 0, zq = 0;
    std::vector<double> q(37);
    for (int i = 0; i < 37; ++i) {
      q[i] = 4 * std::tanh(v[t * 37 + i] / 4);
      zp += std::exp(teacher[t * 37 + i]);
      zq += std::exp(q[i]);
    }
    for (int i = 0; i < 37; ++i) {
      const double p = std::exp(teacher[t * 37 + i]) / zp;
      kl += p * (std::log(p) - (q[i] - std::log(zq)));
    }
  }
  EXPECT_NEAR(at_start, 0.5 * kl, 1e-12 * kl);
  for (size_t i = 0; i < 111; ++i) {
    const double h = 1e-3, keep = v[i];
    const auto at = [&](double d) {
      v[i] = keep + d;
      return loss(v, nullptr);
    };
    const double fd = (8 * (at(h / 2) - at(-h / 2)) - (at(h) - at(-h))) / (6 * h);
    v[i] = keep;
    ASSERT_NEAR(g[i], fd, 1e-9 + 1e-6 * std::fabs(fd)) << i;
  }
  // A model against itself.
  Tape<double> tape(bench.layout, v.data(), nullptr, pool);
  const Value same = table_rows(tape, bench.weights[1]);
  EXPECT_NEAR(tape.distillation(same, teacher, 1.0), 0.0, 1e-12);
}

}  // namespace
}  // namespace carat::train
