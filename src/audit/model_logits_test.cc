#include "audit/model_logits.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "model/testing/random_model.h"

namespace carat::audit {
namespace {

model::Model tiny_model(DType matrix) {
  model::Model m;
  m.path = "tiny";
  m.weights = model::testing::random_weights(model::config_of_size("tiny"), matrix, DType::kF32);
  return m;
}

std::vector<int32_t> some_tokens(int64_t n, int64_t vocab) {
  Rng rng(8);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab))));
  }
  return tokens;
}

TEST(ModelLogits, StepsDoNotMatter) {
  const model::Model m = tiny_model(DType::kQ4_0);
  ThreadPool pool(2);
  ModelLogits source(m, kernels::KvType::kF32, 40, pool, kernels::choose_kernels());
  const auto vocab = static_cast<size_t>(source.vocab_size());
  const auto tokens = some_tokens(40, source.vocab_size());
  std::vector<float> whole(40 * vocab), pieces(40 * vocab);
  source.read(tokens, whole);
  source.restart();
  for (size_t at = 0; at < 40; at += 8) {
    source.read(std::span(tokens).subspan(at, 8), std::span(pieces).subspan(at * vocab, 8 * vocab));
  }
  EXPECT_TRUE(whole == pieces);
}

TEST(ModelLogits, AuditOfAModelAgainstItselfIsExactlyZeroAndOfItsQuantizationIsNot) {
  const model::Model f32 = tiny_model(DType::kF32);
  const model::Model q4 = tiny_model(DType::kQ4_0);
  ThreadPool pool(2);
  const auto& table = kernels::choose_kernels();
  const AuditOptions options{.context = 64, .min_context = 8, .max_positions = 0, .summary = {}};
  ModelLogits reference(f32, kernels::KvType::kF32, 64, pool, table);
  ModelLogits same(f32, kernels::KvType::kF32, 64, pool, table);
  ModelLogits other(q4, kernels::KvType::kF32, 64, pool, table);
  LogitSource* const candidates[] = {&same, &other};
  const AuditResult r = run_audit(reference, candidates, some_tokens(150, reference.vocab_size()),
                                  2, options, pool, {}, nullptr);
  EXPECT_EQ(r.noise_kld, 0);
  EXPECT_EQ(r.candidates[0].max_kld, 0);
  EXPECT_EQ(r.candidates[0].perplexity_ratio.value, 1);
  EXPECT_GT(r.candidates[1].mean_kld.value, 1e-4);
}

TEST(ModelLogits, RefusesAContextLongerThanTheModels) {
  const model::Model m = tiny_model(DType::kF32);
  ThreadPool pool(1);
  EXPECT_THROW(ModelLogits(m, kernels::KvType::kF32, m.config().max_seq_len + 1, pool,
                           kernels::choose_kernels()),
               Error);
}

}  // namespace
}  // namespace carat::audit
