// The tokenizer of a GGUF file.
#include <fmt/format.h>

#include "base/error.h"
#include "io/gguf_metadata.h"
#include "model/load.h"

namespace carat::model {
namespace {

constexpr int64_t kMaxPieces = int64_t{1} << 22;

text::TokenType token_type(int32_t value) {
  return static_cast<text::TokenType>(value);  // 1 to 6, checked by the caller's range
}

}  // namespace

text::Vocab vocab_from_gguf(const io::GgufMetadata& m) {
  const std::string kind(m.get_string("tokenizer.ggml.model"));
  if (kind != "gemma4") {
    throw Error({"carat does not know this tokenizer", "", "tokenizer.ggml.model", "gemma4", kind,
                 "the file was made by a converter that did not know Gemma 4"});
  }
  const io::GgufStrings tokens = m.get_strings("tokenizer.ggml.tokens");
  const int64_t n = tokens.size();
  if (n < 1 || n > kMaxPieces) {
    throw Error({"the tokenizer has too few or too many entries", "", "tokenizer.ggml.tokens",
                 fmt::format("1 to {}", kMaxPieces), fmt::format("{}", n), ""});
  }
  const std::vector<int32_t> types = m.get_ints("tokenizer.ggml.token_type", 1, 6, n);
  const io::GgufStrings merges = m.get_strings("tokenizer.ggml.merges");

  text::VocabBuilder builder;
  builder.reserve(n, merges.size());
  size_t id = 0;
  for (const std::string_view piece : tokens) builder.add_piece(piece, token_type(types[id++]));
  if (m.has("tokenizer.ggml.scores")) {
    for (const float score : m.get_floats("tokenizer.ggml.scores", n)) builder.add_score(score);
  }
  for (const std::string_view merge : merges) builder.add_merge(merge);
  text::Vocab vocab = builder.finish();
  vocab.add_bos = m.get_bool("tokenizer.ggml.add_bos_token", true);
  if (m.has("tokenizer.ggml.suppress_tokens")) {
    vocab.suppress_ids =
        m.get_ints("tokenizer.ggml.suppress_tokens", 0, static_cast<int32_t>(n) - 1);
  }
  return vocab;
}

}  // namespace carat::model
