// A model for tests of audits. Include it in tests only.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "audit/logit_source.h"
#include "base/error.h"
#include "base/rng.h"

namespace carat::audit {

// Predicts by a rule of the tokens read so far, so that skipped, repeated or misplaced reads show.
class FakeModel final : public LogitSource {
 public:
  FakeModel(int64_t vocab, float tilt) : vocab_(vocab), tilt_(tilt) {}
  const std::string& name() const override { return name_; }
  int64_t vocab_size() const override { return vocab_; }
  int64_t max_context() const override { return 64; }
  void start(std::span<const int32_t> tokens) override {
    tokens_.assign(tokens.begin(), tokens.end());
    last_row_ = -1;
    ++starts;
  }
  void extend(std::span<const int32_t> tokens) override {
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  }
  void read(std::span<const int32_t> rows, std::span<float> logits) override {
    CHECK(logits.size() == rows.size() * static_cast<size_t>(vocab_));
    size_t at = 0;
    for (const int32_t row : rows) {
      CHECK(row > last_row_ && static_cast<size_t>(row) < tokens_.size());
      last_row_ = row;
      uint64_t state = 1;
      for (int32_t i = 0; i <= row; ++i) {
        state = state * 31 + static_cast<uint64_t>(tokens_[static_cast<size_t>(i)]);
      }
      Rng rng(state);
      for (int64_t v = 0; v < vocab_; ++v) {
        logits[at++] = static_cast<float>(rng.normal()) + tilt_ * static_cast<float>(v == 0);
      }
      if (poison) logits[at - 1] = __builtin_nanf("");
      ++rows_read;
    }
  }
  int starts = 0;
  int64_t rows_read = 0;
  bool poison = false;

 private:
  std::string name_ = "fake";
  int64_t vocab_;
  float tilt_;
  std::vector<int32_t> tokens_;
  int32_t last_row_ = -1;
};

inline std::vector<int32_t> random_tokens(int64_t n, int64_t vocab, uint64_t seed = 4) {
  Rng rng(seed);
  std::vector<int32_t> text;
  for (int64_t i = 0; i < n; ++i) {
    text.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab))));
  }
  return text;
}

// Chunks of random tokens behind <bos> = 2.
inline std::vector<Chunk> random_chunks(int64_t tokens, int64_t vocab, int64_t context = 33,
                                        int64_t min_context = 5) {
  const int32_t bos = 2;
  CorpusOptions options;
  options.context = context;
  options.min_context = min_context;
  return cut_document(random_tokens(tokens, vocab), std::span(&bos, 1), options);
}

}  // namespace carat::audit
