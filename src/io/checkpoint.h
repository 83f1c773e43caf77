// Opens whatever a person names as a model: a .gguf file, a .safetensors file, or a Hugging Face
// model directory. What the config means is the model layer's business.
#pragma once

#include <memory>
#include <string>

#include "base/json.h"
#include "io/gguf_reader.h"
#include "io/tensor_source.h"

namespace carat::io {

enum class CheckpointKind { kGguf, kSafetensors, kHfDirectory };

const char* name_of(CheckpointKind kind);

struct Checkpoint {
  CheckpointKind kind = CheckpointKind::kGguf;
  std::string path;  // as given
  std::unique_ptr<TensorSource> tensors;

  // GGUF: the file behind `tensors`, which owns it; otherwise nullptr.
  const GgufFile* gguf = nullptr;

  // Hugging Face: config.json and generation_config.json of the directory, or of the folder that
  // holds the .safetensors file; null where there is none (never null for kHfDirectory's config).
  Json config;
  Json generation_config;
  // Paths of files that exist beside the config, otherwise empty.
  std::string tokenizer_path;         // tokenizer.json
  std::string tokenizer_config_path;  // tokenizer_config.json
  std::string chat_template_path;     // chat_template.jinja
};

// Opens by content for files (the GGUF magic) and by config.json for directories. Throws Error.
Checkpoint open_checkpoint(const std::string& path);

}  // namespace carat::io
