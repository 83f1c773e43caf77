// Learns a small vocabulary of Gemma 4's kind from text: its special tokens by text, 256 byte
// tokens, runs of newlines, the text's characters, and pieces learned by byte pair encoding.
//
// Pieces are learned inside words (letters with at most one space in front, single digits, runs of
// punctuation, runs of spaces), so no piece reaches across two words. A newline is joined with
// nothing but newlines, and all merges \n^a + \n^b up to the longest run are there: whether a
// tokenizer cuts the text at newlines first or not, and whether it looks a run up whole or merges
// it step by step, the ids are the same.
//
// The result depends on the text and the options only.
#pragma once

#include <cstdint>
#include <string_view>

#include "text/vocab.h"

namespace carat::text {

struct BpeTrainerOptions {
  int32_t vocab_size = 2048;
  // A character becomes a piece if it occurs this often; rarer ones are spelled in bytes. All
  // printable ASCII characters are pieces anyway.
  int64_t min_character_count = 5;
  int max_newline_run = 8;
  int max_piece_characters = 20;
};

// The order of ids: special_tokens(), <0x00>..<0xFF>, newline runs, characters (by count), learned
// pieces (by rank). Throws Error if the size has no room for the fixed part, or the text is too
// poor to fill it. 8 MB of English take a few seconds.
[[nodiscard]] Vocab train_bpe(std::string_view text, const BpeTrainerOptions& options = {});

}  // namespace carat::text
