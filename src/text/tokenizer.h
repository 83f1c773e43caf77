// Text to token ids and back, as Gemma 4's tokenizer does it.
//
// Encoding: a space becomes U+2581; the text is cut into runs of newlines and runs of anything
// else; a newline run that is a token is that token; everywhere else the adjacent pair with the
// lowest merge rank, the leftmost of equals, is joined until no pair has a merge. It starts from
// single characters; one that is no piece becomes the tokens of its UTF-8 bytes (<0xXX>), or <unk>
// in a vocabulary without byte tokens (several in a row become one). Bytes that are not valid UTF-8
// become their byte tokens as well, so decode_bytes(encode(s)) is s for every s without U+2581.
//
// Nothing is put in front: no space, no <bos>. Time is O(n log n) in the length of the text.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocab.h"

namespace carat::text {

class WordEncoder;

// Const and safe to use from several threads.
class Tokenizer {
 public:
  // Throws Error if the vocabulary has neither all byte tokens nor <unk>.
  explicit Tokenizer(Vocab vocab);

  const Vocab& vocab() const { return *vocab_; }
  // kNoToken if there is no such piece.
  [[nodiscard]] int32_t find(std::string_view piece) const { return index_.find(piece); }

  // A user's text. Control tokens never come out of it: "<|turn>" is spelled in ordinary pieces,
  // and a merge that would make a control, unknown or byte token is not applied.
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text) const;
  void encode(std::string_view text, std::vector<int32_t>* out) const;  // appends

  // Text that is trusted to hold markers (a rendered template): each becomes its token, the longest
  // first, and what stands between them is encoded as above.
  [[nodiscard]] std::vector<int32_t> encode_with_specials(std::string_view text) const;

  // The exact bytes of the tokens; they need not be UTF-8. Control tokens are left out unless
  // `show_specials`. Ids outside the vocabulary throw Error.
  [[nodiscard]] std::string decode_bytes(std::span<const int32_t> ids,
                                         bool show_specials = false) const;
  void append_bytes(int32_t id, bool show_specials, std::string* out) const;

  // Valid UTF-8: each byte that is part of no character becomes U+FFFD. (Hugging Face replaces a
  // whole run of byte tokens if any part of it is malformed; for runs that are all good or all bad
  // the two agree.)
  [[nodiscard]] std::string decode(std::span<const int32_t> ids, bool show_specials = false) const;

 private:
  friend class WordEncoder;

  struct Pair {
    uint64_t key;  // left << 32 | right
    int32_t rank;  // kNoToken: free slot
    int32_t result;
  };
  // The merge of two tokens, or nullptr.
  const Pair* find_pair(int32_t left, int32_t right) const;
  void index_merges();
  void index_characters();
  void index_specials();
  bool is_special(int32_t id) const;
  // Length of the marker at the front of `text`, and its id; 0 if none.
  size_t match_special(std::string_view text, int32_t* id) const;

  std::unique_ptr<const Vocab> vocab_;
  PieceIndex index_;
  std::vector<Pair> pairs_;  // open addressing
  uint64_t pair_mask_ = 0;
  std::array<int32_t, 128> ascii_;     // tokens of single characters; ' ' is that of U+2581
  std::vector<int32_t> newline_runs_;  // [length], kNoToken where there is none
  // [class of a character][class of the next]: some merge joins pieces that meet in such a pair.
  // Where none does, the text can be cut without changing the result.
  static constexpr int kClasses = 129;  // ASCII, and one for all others
  std::array<std::bitset<kClasses>, kClasses> joinable_;
  std::vector<size_t> special_lengths_;  // distinct, longest first
  std::bitset<256> special_starts_;      // first bytes
};

// Decodes one token at a time. What it returns, put together, is decode() of all the tokens; it
// keeps back bytes that may become a character with the next token, so every part is valid UTF-8.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool show_specials = false)
      : tokenizer_(&tokenizer), show_specials_(show_specials) {}

  [[nodiscard]] std::string push(int32_t id);
  // The end: what was kept back comes out as U+FFFD. The decoder can be used again.
  [[nodiscard]] std::string finish();

 private:
  void emit(bool at_end, std::string* out);
  const Tokenizer* tokenizer_;
  bool show_specials_;
  std::string pending_;
};

}  // namespace carat::text
