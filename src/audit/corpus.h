// The text of an audit: files to chunks of tokens, each of one domain.
//
// Plain text is one document. A file whose name ends in .jsonl holds one document a line: a
// conversation {"messages": [{"role", "content"}, ...]} or a text {"text": "..."}.
//
// A plain document is cut into pieces that cover it once; a last piece that is too short to be
// compared anywhere is left out. A chunk is
//   raw    <bos>, then the piece: at most `context` tokens in all;
//   chat   the model's template with a user's request to write a text, then the piece as the
//          beginning of the model's answer: instruction-tuned models are trained to predict answers
//          and nothing else, so the same words in a user's turn would measure what they never do.
// In both, a token of a piece is compared if the piece has at least min_context - 1 tokens before
// it, so that both compare the same tokens of equal pieces.
//
// A conversation is a chunk of its own, rendered by the template and cut off at `context` tokens;
// what is compared are the tokens of the model's turns, the marker at their end included, that have
// at least min_context tokens before them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace carat::audit {

struct Chunk {
  std::vector<int32_t> tokens;  // the first is <bos>
  std::vector<int32_t>
      compared;  // ascending i: what is expected after tokens[i], for tokens[i + 1]
  int32_t domain = 0;
  // How many of its tokens make a prompt for greedy answers (audit/greedy.h): of a conversation all
  // before the model's first answer, of a text up to 64 tokens of it and not more than half.
  int32_t prompt = 0;
};

struct TextFile {
  std::string path;
  std::string domain;  // empty: the file's name without folder and ending
};

// "chat=FILE" or "FILE". A domain is letters, digits, '-', '_' and '.'.
[[nodiscard]] TextFile parse_text_file(const std::string& argument);

struct CorpusOptions {
  int64_t context = 512;      // tokens a chunk
  int64_t min_context = 16;   // >= 1, < context
  int64_t max_positions = 0;  // ends after the chunk that reaches so many; 0: all. With several
                              // files, one chunk of each in turn
  bool chat = false;          // plain text is put into the template
  bool small_family = false;  // text/chat.h
};

struct TextCounts {
  std::string path;
  int32_t domain = 0;
  int64_t bytes = 0;
  std::string sha256;
  int64_t tokens = 0;  // of its documents, without template
  int64_t documents = 0;
  int64_t cut_tokens = 0;       // of conversations longer than the context
  int64_t short_documents = 0;  // too short to be compared anywhere
};

struct Corpus {
  std::vector<Chunk> chunks;         // in the order of files and text
  std::vector<std::string> domains;  // of Chunk::domain
  std::vector<TextCounts> files;     // in the order given
  // What people and models wrote, without template, each document: for overlap.h.
  std::vector<std::vector<int32_t>> documents;
  int64_t positions() const;
};

// Throws Error naming the file and line: not JSON, roles or contents that cannot be rendered, a
// vocabulary without the markers of turns, nothing long enough to compare.
[[nodiscard]] Corpus read_corpus(std::span<const TextFile> files, const text::Tokenizer& tokenizer,
                                 const CorpusOptions& options);

// The tokens of a file's documents, for overlap.h.
[[nodiscard]] std::vector<std::vector<int32_t>> read_documents(const std::string& path,
                                                               const text::Tokenizer& tokenizer);

// One document's chunks. REQUIRES: tokens of the vocabulary; 1 <= min_context < context.
[[nodiscard]] std::vector<Chunk> cut_document(std::span<const int32_t> document,
                                              std::span<const int32_t> prefix,
                                              const CorpusOptions& options);

// Which positions of a rendered conversation predict a token of the model's turns.
[[nodiscard]] std::vector<int32_t> model_turn_positions(std::span<const int32_t> tokens,
                                                        const text::Tokenizer& tokenizer);

}  // namespace carat::audit
