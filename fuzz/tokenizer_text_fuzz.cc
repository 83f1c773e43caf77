// Text to ids and back with a small trained vocabulary: nothing is lost, plain text makes no
// control token, streams are valid UTF-8, and the output parser takes whatever comes.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/utf8.h"
#include "text/bpe_trainer.h"
#include "text/chat.h"
#include "text/test_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using carat::text::TokenType;
  static const carat::text::Tokenizer tokenizer(
      carat::text::train_bpe(carat::text::kTestText, {.vocab_size = 560}));
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::string spaced(text);
  for (size_t at; (at = spaced.find("\xe2\x96\x81")) != std::string::npos;) {
    spaced.replace(at, 3, " ");
  }
  const auto ids = tokenizer.encode(text);
  CHECK(text != spaced || tokenizer.decode_bytes(ids) == spaced);
  for (int32_t id : ids) CHECK(tokenizer.vocab().types[id] != TokenType::kControl);

  const auto marked = tokenizer.encode_with_specials(text);
  CHECK(text != spaced || tokenizer.decode_bytes(marked, true) == spaced);
  CHECK(carat::is_valid_utf8(tokenizer.decode(marked, true)));
  carat::text::OutputParser parser(tokenizer, {marked.data(), marked.size() / 4});
  for (size_t i = marked.size() / 4; i < marked.size(); ++i) {
    const auto delta = parser.push(marked[i]);
    CHECK(carat::is_valid_utf8(delta.content) && carat::is_valid_utf8(delta.reasoning));
  }
  CHECK(carat::is_valid_utf8(parser.finish().content));
  return 0;
}
