// One call of Tokenizer::encode: cuts a text into words that no merge can reach across and merges
// inside each. Not for use outside the tokenizer.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace carat::text {

class WordEncoder {
 public:
  // Both outlive the encoder; ids are appended to `out`.
  WordEncoder(const Tokenizer& tokenizer, std::string_view text, std::vector<int32_t>* out);
  void run();

 private:
  // A word seen before: where it stands in the text, and its ids in the output.
  struct Seen {
    uint32_t begin = 0, size = 0, ids_begin = 0, n_ids = 0;
  };
  struct Node {
    int32_t id, previous, next;  // id kNoToken: joined to the one before
  };

  void newline_run(size_t begin, size_t end);
  void line(size_t begin, size_t end);
  void word(size_t begin, size_t end);
  void merge_word(std::string_view word);
  void merge_short();
  void merge_long();
  void split_characters(std::string_view word);
  void push_candidate(int32_t node);

  const Tokenizer& t_;
  const Vocab& vocab_;
  std::string_view text_;
  std::vector<int32_t>* out_;
  size_t out_base_;         // length of `out` at the start
  std::vector<Seen> seen_;  // a direct-mapped cache
  std::vector<int32_t> symbols_;
  std::vector<Node> nodes_;
  std::vector<uint64_t> heap_;  // rank << 32 | node, the smallest on top
};

}  // namespace carat::text
