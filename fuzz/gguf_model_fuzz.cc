// Any bytes as a GGUF file's head: the config and the vocabulary in it are refused with an Error,
// or can be used.
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/error.h"
#include "io/gguf_parse.h"
#include "model/config.h"
#include "model/load.h"
#include "model/testing/memory_source.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const carat::io::GgufHead head = carat::io::parse_gguf(bytes, "fuzz.gguf");
    carat::model::testing::MemorySource tensors;
    int64_t total = 0;
    for (const carat::io::TensorEntry& e : head.entries) {
      total += e.bytes;
      if (total > int64_t{1} << 24) return 0;
      tensors.add(e.name, e.dtype, e.shape);
    }
    tensors.finish();
    try {
      const carat::model::Config config = carat::model::config_from_gguf(head.metadata, tensors);
      CHECK(config.n_layers > 0 && config.dim > 0);
    } catch (const carat::Error&) {
    }
    const carat::text::Vocab vocab = carat::model::vocab_from_gguf(head.metadata);
    (void)vocab.size();
  } catch (const carat::Error&) {
  }
  return 0;
}
