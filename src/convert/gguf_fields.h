// A model's GGUF metadata, in the keys, types and order of the published files.
#pragma once

#include <cstdint>
#include <string>

#include "io/gguf_writer.h"
#include "model/load.h"
#include "text/vocab.h"

namespace carat::convert {

struct GgufMetadataInput {
  const model::Config* config = nullptr;
  const text::Vocab* vocab = nullptr;                     // null: no tokenizer keys
  const model::GenerationDefaults* generation = nullptr;  // null: no sampling keys
  std::string name;                                       // general.name
  std::string chat_template;                              // empty: no key
  uint32_t file_type = 2;                                 // general.file_type: the mix of types
  bool is_mixed = false;  // some tensors may be quantized, whatever file_type says
};

// A vocabulary smaller than the embedding is filled up with unused entries "[PADn]": other programs
// take the number of tokens for the number of rows. Throws Error.
io::GgufFields gguf_fields(const GgufMetadataInput& input);

// The tokenizer.* keys alone, for an embedding of `rows` rows. `chat_template` may be empty.
void add_tokenizer_fields(io::GgufFields& fields, const text::Vocab& vocab, int64_t rows,
                          const std::string& chat_template);

}  // namespace carat::convert
