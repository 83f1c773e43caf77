// The positions where a candidate is furthest from its reference, with what both expected there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "audit/compare.h"

namespace carat::audit {

// A token that a model expected.
struct Expected {
  int32_t token = 0;
  double probability = 0;
  std::string text = {};  // filled in by describe()
};

struct WorstToken {
  double kld = 0;  // nats
  int64_t chunk = 0;
  int64_t index = 0;                 // tokens of the chunk before the predicted one
  int32_t next = 0;                  // the token that the text has there
  double reference_probability = 0;  // of `next`
  double candidate_probability = 0;
  std::vector<Expected> reference_top;  // most likely first
  std::vector<Expected> candidate_top;
  // Filled in by describe().
  std::string before;     // the text that led there
  std::string next_text;  // `next`
  std::string after;      // what the text goes on with
};

// The `most` largest divergences, the largest first; of equal ones the first in the text. Those of
// exactly 0 are no differences and left out. `chunks` as summarize() takes them: a WorstToken's
// chunk is an index into them.
[[nodiscard]] std::vector<WorstToken> find_worst(std::span<const std::vector<Position>> chunks,
                                                 size_t most = 20);

// The tokens of a chunk, and the text of tokens.
using ChunkTokens = std::function<std::span<const int32_t>(int64_t chunk)>;
using Decode = std::function<std::string(std::span<const int32_t>)>;

inline constexpr size_t kTokensBefore = 32;
inline constexpr size_t kTokensAfter = 8;

// Fills in the texts. REQUIRES: a worst token's index is one of its chunk's, and `next` is there.
void describe(std::span<WorstToken> worst, const ChunkTokens& tokens_of, const Decode& decode);

}  // namespace carat::audit
