// tokenizer.json: any bytes give a vocabulary that works and survives its own file, or an Error.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using carat::text::Tokenizer;
  using carat::text::Vocab;
  try {
    Vocab vocab =
        carat::text::vocab_from_tokenizer_json({reinterpret_cast<const char*>(data), size});
    const Vocab again =
        carat::text::vocab_from_tokenizer_json(carat::text::to_tokenizer_json(vocab));
    CHECK(again.arena == vocab.arena && again.offsets == vocab.offsets);
    CHECK(again.merges.size() == vocab.merges.size());
    const Tokenizer tokenizer(std::move(vocab));
    std::string text = tokenizer.vocab().arena.substr(0, 4096) + " a\n\n\xff <bos>";
    for (size_t at; (at = text.find("\xe2\x96\x81")) != std::string::npos;)
      text.replace(at, 3, " ");
    const auto ids = tokenizer.encode(text);
    if (!tokenizer.vocab().byte_tokens.empty()) CHECK(tokenizer.decode_bytes(ids) == text);
    (void)tokenizer.decode(tokenizer.encode_with_specials(text), true);
  } catch (const carat::Error&) {
  }
  return 0;
}
