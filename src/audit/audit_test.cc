#include "audit/audit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "base/error.h"
#include "base/rng.h"

namespace carat::audit {
namespace {

// Predicts by a rule of the tokens read so far, so that skipped, repeated or misplaced reads show.
class FakeModel final : public LogitSource {
 public:
  FakeModel(int64_t vocab, float tilt) : vocab_(vocab), tilt_(tilt) {}
  const std::string& name() const override { return name_; }
  int64_t vocab_size() const override { return vocab_; }
  int64_t max_context() const override { return 64; }
  int64_t step() const override { return 10; }
  void restart() override {
    state_ = 1;
    ++restarts;
  }
  void read(std::span<const int32_t> tokens, std::span<float> logits) override {
    ASSERT_EQ(logits.size(), tokens.size() * static_cast<size_t>(vocab_));
    size_t at = 0;
    for (const int32_t token : tokens) {
      state_ = state_ * 31 + static_cast<uint64_t>(token);
      Rng rng(state_);
      for (int64_t v = 0; v < vocab_; ++v) {
        logits[at++] = static_cast<float>(rng.normal()) + tilt_ * static_cast<float>(v == 0);
      }
      if (poison) logits[at - 1] = NAN;
    }
  }
  int restarts = 0;
  bool poison = false;

 private:
  std::string name_ = "fake";
  int64_t vocab_;
  float tilt_;
  uint64_t state_ = 1;
};

std::vector<int32_t> sample_text(int n, int vocab) {
  Rng rng(4);
  std::vector<int32_t> text;
  for (int i = 0; i < n; ++i) text.push_back(static_cast<int32_t>(rng.below(vocab)));
  return text;
}

const AuditOptions kSmall = {.context = 33, .min_context = 5, .max_positions = 0, .summary = {}};

TEST(CutIntoChunks, CoversTheTextOnce) {
  const auto text = sample_text(70, 50);
  const auto chunks = cut_into_chunks(text, 2, kSmall);
  ASSERT_EQ(chunks.size(), 3u);
  std::vector<int32_t> joined;
  for (const auto& chunk : chunks) {
    EXPECT_EQ(chunk[0], 2);
    joined.insert(joined.end(), chunk.begin() + 1, chunk.end());
  }
  EXPECT_EQ(joined, text);
  // A rest shorter than the context that a position needs predicts nothing.
  EXPECT_EQ(cut_into_chunks(sample_text(68, 50), 2, kSmall).size(), 2u);
  EXPECT_EQ(cut_into_chunks(sample_text(4, 50), 2, kSmall).size(), 0u);
  EXPECT_EQ(cut_into_chunks(sample_text(5, 50), 2, kSmall).size(), 1u);
}

TEST(CutIntoChunks, StopsAtTheLimit) {
  AuditOptions options = kSmall;
  options.max_positions = 28;  // exactly one chunk: 32 - 5 + 1
  EXPECT_EQ(cut_into_chunks(sample_text(320, 50), 2, options).size(), 1u);
  options.max_positions = 29;
  EXPECT_EQ(cut_into_chunks(sample_text(320, 50), 2, options).size(), 2u);
}

TEST(RunAudit, ReferenceAgainstItselfIsExactlyZero) {
  FakeModel reference(50, 0), same(50, 0);
  ThreadPool pool(2);
  LogitSource* const candidates[] = {&same};
  const auto text = sample_text(200, 50);
  const AuditResult r = run_audit(reference, candidates, text, 2, kSmall, pool, {}, nullptr);
  ASSERT_EQ(r.candidates.size(), 1u);
  const Summary& s = r.candidates[0];
  EXPECT_EQ(s.mean_kld.value, 0);
  EXPECT_EQ(s.p99_kld.value, 0);
  EXPECT_EQ(s.max_kld, 0);
  EXPECT_EQ(s.top1_agreement.value, 1);
  EXPECT_EQ(s.perplexity_ratio.value, 1);
  EXPECT_EQ(s.mean_kld.interval->high, 0);
  EXPECT_EQ(r.noise_kld, 0);
  // 6 chunks of 32 tokens give 28 positions each, the rest of 8 gives 4.
  EXPECT_EQ(s.tokens, 6 * 28 + 4);
  EXPECT_EQ(s.chunks, 7);
}

TEST(RunAudit, MatchesAPlainLoop) {
  constexpr int kVocab = 50;
  FakeModel reference(kVocab, 0), tilted(kVocab, 0.5f), more(kVocab, 1.5f);
  ThreadPool pool(1);
  LogitSource* const candidates[] = {&tilted, &more};
  const auto text = sample_text(75, kVocab);
  int64_t last = 0, total = 0;
  const AuditResult r = run_audit(
      reference, candidates, text, 2, kSmall, pool,
      [&](int64_t done, int64_t all) {
        EXPECT_GT(done, last);
        last = done;
        total = all;
      },
      nullptr);
  EXPECT_EQ(last, total);

  double sum = 0, nll = 0;
  int64_t n = 0;
  for (const auto& chunk : cut_into_chunks(text, 2, kSmall)) {
    FakeModel a(kVocab, 0), b(kVocab, 0.5f);
    std::vector<float> la(kVocab), lb(kVocab);
    for (size_t i = 0; i + 1 < chunk.size(); ++i) {
      a.read(std::span(chunk).subspan(i, 1), la);
      b.read(std::span(chunk).subspan(i, 1), lb);
      if (static_cast<int64_t>(i) + 1 < kSmall.min_context) continue;
      const Position p = compare_position(la, lb, chunk[i + 1]);
      sum += p.kld;
      nll += p.candidate_nll - p.reference_nll;
      ++n;
    }
  }
  EXPECT_EQ(r.candidates[0].tokens, n);
  EXPECT_NEAR(r.candidates[0].mean_kld.value, sum / static_cast<double>(n), 1e-12);
  EXPECT_NEAR(r.candidates[0].perplexity_ratio.value, std::exp(nll / static_cast<double>(n)),
              1e-12);
  EXPECT_GT(r.candidates[1].mean_kld.value, 2 * r.candidates[0].mean_kld.value);
}

TEST(RunAudit, RefusesWhatCannotBeCompared) {
  FakeModel reference(50, 0), other(51, 0), sick(50, 0);
  sick.poison = true;
  ThreadPool pool(1);
  const auto text = sample_text(100, 50);
  const auto audit = [&](LogitSource& candidate, const AuditOptions& options, size_t length) {
    LogitSource* const candidates[] = {&candidate};
    return run_audit(reference, candidates, std::span(text).first(length), 2, options, pool, {},
                     nullptr);
  };
  EXPECT_THROW((void)audit(other, kSmall, 100), Error);
  EXPECT_THROW((void)audit(sick, kSmall, 100), Error);
  EXPECT_THROW((void)audit(reference, kSmall, 3), Error);
  AuditOptions longer = kSmall;
  longer.context = 65;
  EXPECT_THROW((void)audit(sick, longer, 100), Error);
}

TEST(RunAudit, StopsWhenAsked) {
  FakeModel reference(50, 0), same(50, 0);
  ThreadPool pool(1);
  LogitSource* const candidates[] = {&same};
  const std::atomic<bool> stop{true};
  EXPECT_THROW(
      (void)run_audit(reference, candidates, sample_text(100, 50), 2, kSmall, pool, {}, &stop),
      Interrupted);
}

}  // namespace
}  // namespace carat::audit
