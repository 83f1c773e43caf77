// A generated vocabulary of the published size, and English-like text for it.
#pragma once

#include <cstdint>
#include <string>

#include "text/vocab.h"

namespace carat::bench {

inline constexpr int64_t kRealPieces = 262144;
inline constexpr int64_t kRealMerges = 514906;

struct GeneratedVocab {
  text::Vocab vocab;
  std::string sample;  // of about the size asked for: words by Zipf's law, punctuation, paragraphs
};

// Markers, bytes, runs of newlines and of spaces, 6000 characters of several scripts, then words
// letter by letter from the front (so that every piece is made by a merge) until the size is
// reached. Merges are the splits of a piece into two pieces, those of earlier pieces first. Exactly
// kRealPieces and kRealMerges; the same for the same seed.
GeneratedVocab generate_vocab(uint64_t seed, int64_t sample_bytes);

}  // namespace carat::bench
