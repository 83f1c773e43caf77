// A drafter's GGUF metadata.
#pragma once

#include <cstdint>
#include <string>

#include "io/gguf_writer.h"
#include "model/drafter.h"
#include "text/vocab.h"

namespace carat::convert {

// `vocab` may be null: no tokenizer keys. `file_type`: general.file_type.
io::GgufFields drafter_fields(const model::DrafterConfig& config, const text::Vocab* vocab,
                              const std::string& name, const std::string& chat_template,
                              uint32_t file_type);

}  // namespace carat::convert
