// Token sequences from plain text.
//
// A sequence of length S is <bos> and S - 1 consecutive tokens; the targets are the S tokens that
// begin one place later, so every token of a window is predicted once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace carat::train {

struct Batch {
  std::vector<int32_t> tokens;   // [sequences * length]
  std::vector<int32_t> targets;  // the same
  int64_t sequences = 0;
};

// Tokens of the files, <bos> between them. Throws Error for unreadable files.
std::vector<int32_t> tokenize_files(const std::vector<std::string>& paths,
                                    const text::Tokenizer& tokenizer);

// Training sequences in seeded order. Each epoch cuts the text into windows from a random first
// place and shuffles them; which sequence comes k-th is a function of (text, length, seed, k).
class TrainingData {
 public:
  // Throws Error if the text is shorter than one window.
  TrainingData(std::vector<int32_t> tokens, int64_t length, int32_t bos, uint64_t seed);

  int64_t token_count() const { return static_cast<int64_t>(tokens_.size()); }
  // Sequences [first, first + n) of the endless order.
  Batch batch(int64_t first, int64_t n);
  // Of the tokens, to recognise the same text.
  uint64_t fingerprint() const;

 private:
  void start_epoch(int64_t epoch);

  std::vector<int32_t> tokens_;
  int64_t length_;
  int32_t bos_;
  uint64_t seed_;
  int64_t windows_;  // per epoch
  int64_t epoch_ = -1;
  std::vector<int64_t> starts_;  // of the epoch's windows, shuffled
};

// Consecutive windows of a held-out text, in order; the rest that fills no window is left out.
class HeldOutData {
 public:
  HeldOutData(std::vector<int32_t> tokens, int64_t length, int32_t bos);
  int64_t sequences() const;
  Batch batch(int64_t first, int64_t n) const;

 private:
  std::vector<int32_t> tokens_;
  int64_t length_;
  int32_t bos_;
};

}  // namespace carat::train
