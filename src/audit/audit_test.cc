#include "audit/audit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "audit/fake_model.h"
#include "audit/greedy.h"
#include "audit/precision.h"
#include "audit/resume.h"
#include "base/error.h"

namespace carat::audit {
namespace {

constexpr int64_t kVocab = 50;

AuditModels models_of(FakeModel& reference, std::vector<LogitSource*> candidates) {
  AuditModels models;
  models.references = {{&reference, nullptr}};
  models.candidates = std::move(candidates);
  return models;
}

double mean_kld(const PairResult& pair) {
  MeanTracker mean;
  for (const auto& chunk : pair.positions) mean.add(chunk);
  return mean.mean();
}

bool same_positions(const AuditResult& a, const AuditResult& b) {
  if (a.finished != b.finished || a.pairs.size() != b.pairs.size()) return false;
  for (size_t p = 0; p < a.pairs.size(); ++p) {
    for (size_t c = 0; c < a.finished.size(); ++c) {
      const auto& x = a.pairs[p].positions[c];
      const auto& y = b.pairs[p].positions[c];
      if (x.size() != y.size()) return false;
      for (size_t i = 0; i < x.size(); ++i) {
        if (x[i].kld != y[i].kld || x[i].candidate_nll != y[i].candidate_nll) return false;
      }
    }
  }
  return true;
}

TEST(RunAudit, ReferenceAgainstItselfIsExactlyZero) {
  FakeModel reference(kVocab, 0), same(kVocab, 0), again(kVocab, 0);
  ThreadPool pool(2);
  AuditModels models = models_of(reference, {&same});
  models.again = {&again};
  const auto chunks = random_chunks(200, kVocab);
  const AuditResult r = run_audit(models, chunks, {}, pool);
  ASSERT_EQ(r.pairs.size(), 1u);
  const Summary s = summarize(r.pairs[0].positions, {});
  EXPECT_EQ(s.mean_kld.value, 0);
  EXPECT_EQ(s.max_kld, 0);
  EXPECT_EQ(s.top1_agreement.value, 1);
  EXPECT_EQ(s.perplexity_ratio.value, 1);
  ASSERT_EQ(r.noise_kld.size(), 1u);
  EXPECT_EQ(r.noise_kld[0], 0);
  // 6 chunks of 32 tokens give 28 positions each, the rest of 8 gives 4.
  EXPECT_EQ(s.tokens, 6 * 28 + 4);
  EXPECT_EQ(s.chunks, 7);
}

TEST(RunAudit, NoiseIsSeen) {
  FakeModel reference(kVocab, 0), same(kVocab, 0), noisy(kVocab, 0.25f);
  ThreadPool pool(1);
  AuditModels models = models_of(reference, {&same});
  models.again = {&same, &noisy};
  const AuditResult r = run_audit(models, random_chunks(40, kVocab), {}, pool);
  EXPECT_EQ(r.noise_kld[0], 0);
  EXPECT_GT(r.noise_kld[1], 0);
}

TEST(RunAudit, MatchesAPlainLoopForEveryPair) {
  FakeModel first(kVocab, 0), second(kVocab, 0.3f), tilted(kVocab, 0.5f);
  ThreadPool pool(3);
  AuditModels models = models_of(first, {&tilted, &second});
  models.references.push_back({&second, nullptr});
  const auto chunks = random_chunks(75, kVocab);
  int64_t last = 0, total = 0;
  AuditHooks hooks;
  hooks.progress = [&](const AuditProgress& p) {
    EXPECT_GE(p.done, last);
    last = p.done;
    total = p.total;
  };
  const AuditResult r = run_audit(models, chunks, {}, pool, hooks);
  EXPECT_EQ(last, total);
  ASSERT_EQ(r.pairs.size(), 4u);
  // A source that is a reference and a candidate is read once.
  EXPECT_EQ(second.rows_read, total);

  const float tilts[2][2] = {{0, 0.3f}, {0.5f, 0.3f}};
  for (size_t p = 0; p < 4; ++p) {
    const PairResult& pair = r.pairs[p];
    EXPECT_EQ(pair.reference, p / 2);
    EXPECT_EQ(pair.candidate, p % 2);
    FakeModel a(kVocab, tilts[0][pair.reference]), b(kVocab, tilts[1][pair.candidate]);
    for (size_t c = 0; c < chunks.size(); ++c) {
      for (size_t k = 0; k < chunks[c].compared.size(); ++k) {
        const int32_t i = chunks[c].compared[k];
        std::vector<float> la(kVocab), lb(kVocab);
        a.start(chunks[c].tokens);
        a.read(std::span(&i, 1), la);
        b.start(chunks[c].tokens);
        b.read(std::span(&i, 1), lb);
        const Position want =
            compare_position(la, lb, chunks[c].tokens[static_cast<size_t>(i) + 1]);
        ASSERT_EQ(pair.positions[c][k].kld, want.kld);
        ASSERT_EQ(pair.positions[c][k].candidate_nll, want.candidate_nll);
      }
    }
  }
  EXPECT_EQ(mean_kld(r.pairs[3]), 0);
  EXPECT_GT(mean_kld(r.pairs[0]), 0);
}

class KeptLogits final : public TeacherWriter {
 public:
  void add(std::span<const float> logits, ThreadPool&) override {
    all.insert(all.end(), logits.begin(), logits.end());
  }
  void commit() override {}
  std::vector<float> all;
};

TEST(RunAudit, SavesTheFirstReferenceInTheOrderOfVisits) {
  FakeModel first(kVocab, 0), second(kVocab, 0.3f), tilted(kVocab, 0.5f);
  ThreadPool pool(2);
  AuditModels models = models_of(first, {&tilted, &first});
  models.references.push_back({&second, nullptr});
  const auto chunks = random_chunks(150, kVocab);
  AuditOptions options;
  options.precision = 1e-9;
  KeptLogits kept;
  AuditHooks hooks;
  hooks.save = &kept;
  (void)run_audit(models, chunks, options, pool, hooks);
  std::vector<float> want;
  for (const size_t c : visiting_order(chunks.size(), options)) {
    std::vector<float> rows(chunks[c].compared.size() * kVocab);
    FakeModel again(kVocab, 0);
    again.start(chunks[c].tokens);
    again.read(chunks[c].compared, rows);
    want.insert(want.end(), rows.begin(), rows.end());
  }
  EXPECT_EQ(kept.all, want);
}

TEST(RunAudit, RefusesWhatCannotBeCompared) {
  FakeModel reference(kVocab, 0), other(kVocab + 1, 0), sick(kVocab, 0);
  sick.poison = true;
  ThreadPool pool(1);
  const auto chunks = random_chunks(100, kVocab);
  EXPECT_THROW((void)run_audit(models_of(reference, {&other}), chunks, {}, pool), Error);
  EXPECT_THROW((void)run_audit(models_of(reference, {&sick}), chunks, {}, pool), Error);
  const auto longer = random_chunks(100, kVocab, 66);
  EXPECT_THROW((void)run_audit(models_of(reference, {&reference}), longer, {}, pool), Error);
}

TEST(RunAudit, StopsWhenAsked) {
  FakeModel reference(kVocab, 0), same(kVocab, 0);
  ThreadPool pool(1);
  const std::atomic<bool> stop{true};
  AuditHooks hooks;
  hooks.stop = &stop;
  const auto chunks = random_chunks(100, kVocab);
  EXPECT_THROW((void)run_audit(models_of(reference, {&same}), chunks, {}, pool, hooks),
               Interrupted);
}

TEST(Precision, EndsEarlyOnASampleOfTheWholeText) {
  FakeModel reference(kVocab, 0), tilted(kVocab, 0.5f);
  ThreadPool pool(2);
  const auto chunks = random_chunks(32 * 200, kVocab);
  AuditOptions options;
  options.precision = 0.05;
  const AuditResult r = run_audit(models_of(reference, {&tilted}), chunks, options, pool);
  ASSERT_TRUE(r.precise.has_value());
  EXPECT_TRUE(*r.precise);
  EXPECT_GE(static_cast<int64_t>(r.finished.size()), kFewestChunks);
  EXPECT_LT(r.finished.size(), chunks.size() / 2);
  EXPECT_GT(r.finished.back(), chunks.size() / 2);  // not the beginning of the text
  // What is stated is what was reached, and the chunk before was not enough.
  MeanTracker mean;
  for (const auto& chunk : r.pairs[0].positions) mean.add(chunk);
  EXPECT_LE(mean.relative_half_width(options.summary), 0.055);
  // An audit of everything finds the same positions there.
  const AuditResult all = run_audit(models_of(reference, {&tilted}), chunks, {}, pool);
  for (size_t k = 0; k < r.finished.size(); ++k) {
    EXPECT_EQ(r.pairs[0].positions[k][0].kld, all.pairs[0].positions[r.finished[k]][0].kld);
  }
  // A precision out of reach reads everything and says so.
  options.precision = 1e-6;
  const AuditResult never = run_audit(models_of(reference, {&tilted}), chunks, options, pool);
  EXPECT_FALSE(*never.precise);
  EXPECT_TRUE(same_positions(never, all));
}

TEST(Precision, OrderIsDrawnBySeedAndOnlyIfNeeded) {
  AuditOptions options;
  EXPECT_EQ(visiting_order(3, options), (std::vector<size_t>{0, 1, 2}));
  options.precision = 0.1;
  const auto order = visiting_order(100, options);
  EXPECT_EQ(std::set<size_t>(order.begin(), order.end()).size(), 100u);
  EXPECT_EQ(order, visiting_order(100, options));
  options.summary.seed = 2;
  EXPECT_NE(order, visiting_order(100, options));
}

class StateTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() /
            ("carat_state_" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) +
             std::to_string(reinterpret_cast<uintptr_t>(this)));
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  Json key(const std::string& model = "a") const {
    Json j;
    j["model"] = Json::object({{"path", model}, {"bytes", 7}});
    return j;
  }
  std::string path() const { return path_.string(); }
  std::filesystem::path path_;
};

TEST_F(StateTest, GoesOnWhereItWasKilled) {
  FakeModel reference(kVocab, 0), tilted(kVocab, 0.5f), again(kVocab, 0.1f);
  ThreadPool pool(2);
  AuditModels models = models_of(reference, {&tilted});
  models.again = {&again};
  const auto chunks = random_chunks(32 * 20, kVocab);
  AuditOptions options;
  options.precision = 0.1;
  const AuditResult whole = run_audit(models, chunks, options, pool);
  ASSERT_GT(whole.finished.size(), 10u);
  ASSERT_LT(whole.finished.size(), chunks.size());

  std::atomic<bool> stop{false};
  {
    AuditState state(path(), key());
    AuditHooks hooks;
    hooks.state = &state;
    hooks.stop = &stop;
    hooks.progress = [&](const AuditProgress& p) { stop = p.done > 150; };
    EXPECT_THROW((void)run_audit(models, chunks, options, pool, hooks), Interrupted);
    EXPECT_GT(state.records(), 3);
  }
  // The end of the last record was not written.
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 5);
  AuditState state(path(), key());
  const int64_t before = state.records();
  EXPECT_GT(before, 1);
  AuditHooks hooks;
  hooks.state = &state;
  const int64_t rows = tilted.rows_read;
  const AuditResult resumed = run_audit(models, chunks, options, pool, hooks);
  EXPECT_TRUE(same_positions(resumed, whole));
  EXPECT_EQ(resumed.noise_kld, whole.noise_kld);
  EXPECT_LT(tilted.rows_read - rows,
            static_cast<int64_t>(whole.finished.size()) * 28 - 28);  // what was there is not read

  const int64_t after = tilted.rows_read;
  EXPECT_TRUE(same_positions(run_audit(models, chunks, options, pool, hooks), whole));
  EXPECT_EQ(tilted.rows_read, after);
}

TEST_F(StateTest, RefusesOtherAuditsByName) {
  { AuditState state(path(), key()); }
  try {
    AuditState state(path(), key("b"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.info().place, "model.path");
    EXPECT_EQ(e.info().expected, "\"a\"");
    EXPECT_EQ(e.info().got, "\"b\"");
  }
  AuditState held(path(), key());
  EXPECT_THROW(AuditState(path(), key()), Error);  // in use
}

TEST_F(StateTest, SparesFilesOfOtherKinds) {
  const std::string text = "a letter to my aunt";
  std::ofstream(path_) << text;
  EXPECT_THROW(AuditState(path(), key()), Error);
  std::ofstream(path_) << text << "\nand more\n";
  EXPECT_THROW(AuditState(path(), key()), Error);
  EXPECT_EQ(std::filesystem::file_size(path_), text.size() + 10);
}

TEST_F(StateTest, DropsDamagedRecords) {
  const std::vector<std::byte> bytes(100, std::byte{7});
  {
    AuditState state(path(), key());
    for (int64_t i = 0; i < 3; ++i) state.add("x", i, bytes);
  }
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path_));
  {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(size - 140 - 50);  // inside the second record
    file.put('!');
  }
  AuditState state(path(), key());
  EXPECT_EQ(state.records(), 1);
  ASSERT_NE(state.find("x", 0), nullptr);
  EXPECT_EQ(*state.find("x", 0), bytes);
  state.add("x", 1, bytes);
  EXPECT_EQ(static_cast<int64_t>(std::filesystem::file_size(path_)), size - 140);
}

TEST(Greedy, FindsTheFirstDifference) {
  const std::vector<int32_t> a = {1, 2, 3}, b = {1, 2, 4}, shorter = {1, 2};
  EXPECT_EQ(common_tokens(a, b, 8), 2);
  EXPECT_EQ(common_tokens(a, a, 8), 8);
  EXPECT_EQ(common_tokens(a, shorter, 8), 2);
}

TEST(Greedy, AnswersFollowEachModelsOwnTokens) {
  FakeModel reference(kVocab, 0), same(kVocab, 0), tilted(kVocab, 1.5f);
  const auto chunks = random_chunks(32 * 12, kVocab);
  GreedyOptions options;
  options.tokens = 20;
  options.prompts = 8;
  const auto found = run_greedy(models_of(reference, {&same, &tilted}), chunks, options);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].first_differences, std::vector<int64_t>(8, 20));
  ASSERT_EQ(found[1].first_differences.size(), 8u);
  // By hand, for one prompt after the other, with the whole text read anew for each token.
  std::multiset<int64_t> want,
      got(found[1].first_differences.begin(), found[1].first_differences.end());
  const auto answer = [&](float tilt, std::vector<int32_t> text) {
    std::vector<int32_t> out;
    for (int k = 0; k < 20; ++k) {
      FakeModel m(kVocab, tilt);
      std::vector<float> logits(kVocab);
      const auto last = static_cast<int32_t>(text.size()) - 1;
      m.start(text);
      m.read(std::span(&last, 1), logits);
      text.push_back(argmax(logits));
      out.push_back(text.back());
    }
    return out;
  };
  std::multiset<int64_t> all;
  for (const Chunk& c : chunks) {
    const std::vector<int32_t> prompt(c.tokens.begin(), c.tokens.begin() + c.prompt);
    all.insert(common_tokens(answer(0, prompt), answer(1.5f, prompt), 20));
  }
  for (const int64_t d : got) {
    ASSERT_TRUE(all.contains(d));
    all.erase(all.find(d));
  }
}

TEST(Greedy, StopTokensEndAnswers) {
  FakeModel reference(kVocab, 100), tilted(kVocab, 90);  // both always say 0
  GreedyOptions options;
  options.tokens = 20;
  options.stop_ids = {0};
  const auto found =
      run_greedy(models_of(reference, {&tilted}), random_chunks(40, kVocab), options);
  EXPECT_EQ(found[0].first_differences.front(), options.tokens);
  EXPECT_LE(reference.rows_read, 2);
}

}  // namespace
}  // namespace carat::audit
