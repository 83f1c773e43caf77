#include "model/forward.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/testing/random_model.h"
#include "model/testing/reference_forward.h"
#include "model/testing/run_forward.h"

namespace carat::model {
namespace {

using kernels::KvType;
using testing::RunOptions;

constexpr const char* kKinds[] = {"tiny", "tinykv", "tinymoe"};

std::vector<int32_t> random_tokens(int64_t n, const Config& c, uint64_t seed = 7) {
  Rng rng(seed);
  std::vector<int32_t> t;
  for (int64_t i = 0; i < n; ++i) {
    t.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(c.vocab_size))));
  }
  return t;
}

double deviation(const std::vector<float>& x) {
  double mean = 0, squares = 0;
  for (const float v : x) mean += v;
  mean /= static_cast<double>(x.size());
  for (const float v : x) squares += (v - mean) * (v - mean);
  return std::sqrt(squares / static_cast<double>(x.size()));
}

class ForwardOfKind : public ::testing::TestWithParam<const char*> {
 protected:
  Config config_ = config_of_size(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Kinds, ForwardOfKind, ::testing::ValuesIn(kKinds),
                         [](const auto& param) { return std::string(param.param); });

TEST_P(ForwardOfKind, AgreesWithTheReference) {
  const Weights w = testing::random_weights(config_, DType::kF32, DType::kF32);
  // Past the window, past a page.
  const std::vector<int32_t> tokens = random_tokens(80, config_);
  const std::vector<float> got = testing::run_forward(w, tokens, {});
  const testing::Rows expected = testing::ReferenceForward(w).run(tokens);
  ASSERT_EQ(got.size(), expected.size() * expected[0].size());
  // Random parameters must give logits worth comparing.
  EXPECT_GT(deviation(got), 1.0);
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double e = expected[i / expected[0].size()][i % expected[0].size()];
    worst = std::max(worst, std::abs(got[i] - e));
  }
  EXPECT_LT(worst, 3e-5);
}

TEST_P(ForwardOfKind, SameBitsForEveryChunkingAndThreadCount) {
  const std::vector<int32_t> tokens = random_tokens(150, config_);
  const struct {
    DType matrix, table;
  } types[] = {{DType::kBF16, DType::kBF16}, {DType::kQ4_0, DType::kQ6_K}};
  for (const auto& type : types) {
    const Weights w = testing::random_weights(config_, type.matrix, type.table);
    for (const KvType kv : {KvType::kF32, KvType::kF16, KvType::kI8, KvType::kI4, KvType::kI4R}) {
      RunOptions base;
      base.kv = kv;
      base.wanted = {0, 1, 15, 16, 17, 63, 64, 65, 100, 127, 128, 148, 149};
      const std::vector<float> expected = testing::run_forward(w, tokens, base);
      const struct {
        int threads;
        int64_t chunk;
      } ways[] = {{4, 150}, {2, 7}, {3, 64}, {1, 1}};
      for (const auto& way : ways) {
        RunOptions o = base;
        o.threads = way.threads;
        o.chunk = way.chunk;
        EXPECT_EQ(testing::run_forward(w, tokens, o), expected)
            << carat::name_of(type.matrix) << ", KV type " << static_cast<int>(kv) << ", "
            << way.threads << " threads, chunks of " << way.chunk;
      }
    }
  }
}

TEST_P(ForwardOfKind, SkippingChangesNoBit) {
  const Weights w = testing::random_weights(config_, DType::kQ4_0, DType::kQ6_K);
  const std::vector<int32_t> tokens = random_tokens(70, config_);
  for (const std::vector<int64_t>& wanted :
       {std::vector<int64_t>{69}, std::vector<int64_t>{0, 31, 32, 69}, std::vector<int64_t>{}}) {
    for (const int64_t chunk : {70, 32}) {
      RunOptions o;
      o.wanted = wanted;
      o.chunk = chunk;
      o.skip = false;
      const std::vector<float> expected = testing::run_forward(w, tokens, o);
      o.skip = true;
      EXPECT_EQ(testing::run_forward(w, tokens, o), expected);
    }
  }
}

TEST_P(ForwardOfKind, NothingWantedStillStoresKeysAndValues) {
  const Weights w = testing::random_weights(config_, DType::kQ4_0, DType::kQ6_K);
  const std::vector<int32_t> tokens = random_tokens(40, config_);
  RunOptions o;
  o.wanted = {39};
  const std::vector<float> expected = testing::run_forward(w, tokens, o);
  o.chunk = 39;  // the first call wants nothing
  EXPECT_EQ(testing::run_forward(w, tokens, o), expected);
  o.want_none = true;
  EXPECT_TRUE(testing::run_forward(w, tokens, o).empty());
}

TEST_P(ForwardOfKind, LayerRangesJoin) {
  const Weights w = testing::random_weights(config_, DType::kQ4_0, DType::kQ6_K);
  const std::vector<int32_t> tokens = random_tokens(24, config_);
  RunOptions o;
  o.wanted = {5, 23};
  const std::vector<float> expected = testing::run_forward(w, tokens, o);
  std::vector<kernels::RowRef> rows;
  for (int32_t i = 0; i < 24; ++i) rows.push_back({0, i});
  const std::vector<int32_t> wanted = {5, 23};
  for (int64_t cut = 0; cut <= config_.n_layers; ++cut) {
    ThreadPool pool(1);
    kernels::CpuOps ops(pool);
    KvSequence sequence(config_, KvType::kF32, KvPagePool::create(1 << 30));
    sequence.prepare(24);
    const KvSequence* const sequences[] = {&sequence};
    const KvBatch batch(config_, sequences);
    const Step step{tokens, rows, wanted, [&](int64_t l) { return batch.layer(l); }, true};
    Residual r = run_layers(w, ops, step, embed(w, ops, step), 0, cut);
    r = run_layers(w, ops, step, std::move(r), cut, config_.n_layers);
    std::vector<float> got(expected.size());
    ops.read(logits_of(w, ops, r.x), got);
    EXPECT_EQ(got, expected) << "cut at layer " << cut;
  }
}

TEST_P(ForwardOfKind, SequencesInOneCallDoNotTouchEachOther) {
  const Weights w = testing::random_weights(config_, DType::kQ4_0, DType::kQ6_K);
  const std::vector<int32_t> a = random_tokens(30, config_, 1), b = random_tokens(20, config_, 2);
  RunOptions alone;
  alone.wanted = {29};
  std::vector<float> expected = testing::run_forward(w, a, alone);
  alone.wanted = {19};
  const std::vector<float> second = testing::run_forward(w, b, alone);
  expected.insert(expected.end(), second.begin(), second.end());

  ThreadPool pool(2);
  kernels::CpuOps ops(pool);
  const auto pages = KvPagePool::create(1 << 30);
  KvSequence sa(config_, KvType::kF32, pages), sb(config_, KvType::kF32, pages);
  sa.prepare(30);
  sb.prepare(20);
  std::vector<int32_t> tokens, wanted = {48, 49};
  std::vector<kernels::RowRef> rows;
  for (int32_t i = 0; i < 30; ++i) {  // interleaved; the last rows are the last of each
    if (i >= 10) {
      tokens.push_back(b[static_cast<size_t>(i - 10)]);
      rows.push_back({1, i - 10});
    }
    tokens.push_back(a[static_cast<size_t>(i)]);
    rows.push_back({0, i});
  }
  std::swap(rows[48], rows[49]);
  std::swap(tokens[48], tokens[49]);
  const KvSequence* const sequences[] = {&sa, &sb};
  const KvBatch batch(config_, sequences);
  const Step step{tokens, rows, wanted, [&](int64_t l) { return batch.layer(l); }, true};
  std::vector<float> got(expected.size());
  ops.read(forward(w, ops, step), got);
  EXPECT_EQ(got, expected);
}

}  // namespace
}  // namespace carat::model
