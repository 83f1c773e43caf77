// Learns a tokenizer from text files: the first step of training a model from nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace carat::train {

struct TokenizerResult {
  int64_t bytes = 0;   // of the text
  int64_t tokens = 0;  // that the text becomes
};

// Learns `vocab_size` entries from the files' text, joined in the order given (text::train_bpe),
// and writes tokenizer.json and tokenizer_config.json into `out_dir`, which is made if it is not
// there. The result depends on the text and the size only. Throws Error.
TokenizerResult make_tokenizer(const std::vector<std::string>& text_files, int64_t vocab_size,
                               const std::string& out_dir);

}  // namespace carat::train
