#include "audit/model_logits.h"

#include <gtest/gtest.h>

#include <numeric>

#include "audit/audit.h"
#include "audit/fake_model.h"
#include "audit/streamed.h"
#include "base/error.h"
#include "model/testing/random_model.h"

namespace carat::audit {
namespace {

model::Model random_model(const char* size, DType matrix) {
  model::Model m;
  m.path = size;
  m.weights = model::testing::random_weights(model::config_of_size(size), matrix, DType::kF32);
  return m;
}

std::vector<float> read_rows(LogitSource& source, std::span<const int32_t> rows) {
  std::vector<float> logits(rows.size() * static_cast<size_t>(source.vocab_size()));
  source.read(rows, logits);
  return logits;
}

TEST(ModelLogits, StepsThreadsAndChoiceOfRowsDoNotMatter) {
  const model::Model m = random_model("tiny", DType::kQ4_0);
  ThreadPool pool(2), single(1);
  const auto& table = kernels::choose_kernels();
  ModelLogits source(m, {.context = 40}, pool, table);
  ModelLogits steps(m, {.context = 40, .step = 7}, single, table);
  const auto tokens = random_tokens(40, source.vocab_size());
  std::vector<int32_t> rows(40);
  std::iota(rows.begin(), rows.end(), 0);
  source.start(tokens);
  const auto whole = read_rows(source, rows);
  steps.start(std::span(tokens).first(20));
  auto pieces = read_rows(steps, std::span(rows).first(15));
  steps.extend(std::span(tokens).subspan(20));
  const auto rest = read_rows(steps, std::span(rows).subspan(15));
  pieces.insert(pieces.end(), rest.begin(), rest.end());
  EXPECT_TRUE(whole == pieces);

  const std::vector<int32_t> some = {3, 9, 10, 31};
  steps.start(tokens);
  const auto few = read_rows(steps, some);
  const auto vocab = static_cast<size_t>(source.vocab_size());
  for (size_t i = 0; i < some.size(); ++i) {
    EXPECT_TRUE(std::equal(few.begin() + static_cast<int64_t>(i * vocab),
                           few.begin() + static_cast<int64_t>((i + 1) * vocab),
                           whole.begin() + static_cast<int64_t>(vocab) * some[i]));
  }
}

TEST(ModelLogits, AuditOfQuantizationAndOfSmallKeysAndValues) {
  const model::Model f32 = random_model("tiny", DType::kF32);
  const model::Model q4 = random_model("tiny", DType::kQ4_0);
  ThreadPool pool(2), single(1);
  const auto& table = kernels::choose_kernels();
  ModelLogits reference(f32, {.context = 64}, pool, table);
  ModelLogits same(f32, {.context = 64, .step = 7}, single, table);
  ModelLogits other(q4, {.context = 64}, pool, table);
  ModelLogits f16(f32, {.kv = kernels::KvType::kF16, .context = 64}, pool, table);
  ModelLogits int8(f32, {.kv = kernels::KvType::kI8, .context = 64}, pool, table);
  AuditModels models;
  models.references = {{&reference, nullptr}};
  models.candidates = {&same, &other, &f16, &int8};
  models.again = {&same};
  const auto chunks = random_chunks(150, reference.vocab_size(), 64, 8);
  const AuditResult r = run_audit(models, chunks, {}, pool);
  EXPECT_EQ(r.noise_kld, std::vector<double>{0});
  std::vector<double> means;
  for (const PairResult& pair : r.pairs) {
    means.push_back(summarize(pair.positions, {}).mean_kld.value);
  }
  EXPECT_EQ(means[0], 0);
  EXPECT_GT(means[1], 1e-4);
  EXPECT_GT(means[2], 0);
  EXPECT_GT(means[3], 4 * means[2]);
}

TEST(ModelLogits, RefusesAContextLongerThanTheModels) {
  const model::Model m = random_model("tiny", DType::kF32);
  ThreadPool pool(1);
  EXPECT_THROW(
      ModelLogits(m, {.context = m.config().max_seq_len + 1}, pool, kernels::choose_kernels()),
      Error);
}

// Every kind of model: shared K/V with per-layer embeddings, K = V, a mixture of experts.
class Streamed : public testing::TestWithParam<const char*> {};

TEST_P(Streamed, IsBitIdenticalToTheModelInMemory) {
  const model::Model m = random_model(GetParam(), DType::kBF16);
  ThreadPool pool(2);
  const auto& table = kernels::choose_kernels();
  for (const auto kv : {kernels::KvType::kF32, kernels::KvType::kF16, kernels::KvType::kI8,
                        kernels::KvType::kI4R}) {
    auto chunks = random_chunks(700, m.config().vocab_size, 150, 8);
    chunks[1].compared = {2, 70, 71, 140};  // as in a conversation
    StreamedLogits::Options options;
    options.kv = kv;
    int passes = 0;
    options.progress = [&](int64_t layer, int64_t, int64_t) { passes += layer == 0; };
    // The least memory that is enough, found from the refusal of less.
    options.memory = 1;
    int64_t least = 0;
    try {
      StreamedLogits refused(m, options, 150, pool, table);
    } catch (const Error& e) {
      least = std::stoll(e.info().expected.substr(std::string("at least ").size()));
    }
    ASSERT_GT(least, 0);
    options.memory = (least + 1) * 1'000'000;
    StreamedLogits streamed(m, options, 150, pool, table);
    ModelLogits resident(m, {.kv = kv, .context = 150}, pool, table);
    AuditModels models;
    models.references = {{&resident, nullptr}};
    models.candidates = {&streamed};
    const AuditResult r = run_audit(models, chunks, {}, pool);
    for (const auto& chunk : r.pairs[0].positions) {
      for (const Position& p : chunk) {
        ASSERT_EQ(p.kld, 0);
        ASSERT_EQ(p.reference_nll, p.candidate_nll);
      }
    }
    EXPECT_GE(passes, 1);
    EXPECT_LT(passes, static_cast<int>(chunks.size()));  // several chunks at once
    // The logits themselves, of a chunk that was carried along with others.
    const auto rows = std::span(chunks[1].compared);
    std::vector<const Chunk*> coming = {&chunks[0], &chunks[1]};
    streamed.look_ahead(coming);
    coming.erase(coming.begin());
    streamed.look_ahead(coming);
    streamed.start(chunks[1].tokens);
    resident.start(chunks[1].tokens);
    EXPECT_TRUE(read_rows(streamed, rows) == read_rows(resident, rows));
  }
}
INSTANTIATE_TEST_SUITE_P(Kinds, Streamed, testing::Values("tiny", "tinykv", "tinymoe"));

TEST(Streamed, DoesNotContinueTexts) {
  const model::Model m = random_model("tiny", DType::kBF16);
  ThreadPool pool(1);
  StreamedLogits streamed(m, {}, 64, pool, kernels::choose_kernels());
  const std::vector<int32_t> tokens = {2, 3};
  EXPECT_THROW(streamed.extend(tokens), Error);
}

}  // namespace
}  // namespace carat::audit
