// What of a checkpoint is text beside its tensors: read from the source, written to a directory.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "io/checkpoint.h"
#include "model/load.h"

namespace carat::convert {

using Texts = std::vector<std::pair<std::string, std::string>>;  // file name, contents

// Taken before the model is loaded.
struct SideFiles {
  std::string tokenizer_path;                       // copied as it is; empty if there is none
  std::string tokenizer_config, generation_config;  // whole texts, or empty
  std::string chat_template;
  std::string name;  // of the model, for people
  // Of a directory, carried into another one as they are: licence and notices, the model card, what
  // processors of images and sound need.
  Texts others;
};
SideFiles read_side_files(const io::Checkpoint& checkpoint);

// The files of a model directory beside its weights. `vocab` may be null: no tokenizer.
Texts hf_texts(const Json& config, const text::Vocab* vocab, const SideFiles& side);
// The text of generation_config.json.
std::string generation_config_text(const model::GenerationDefaults& g, const text::Vocab* vocab);

}  // namespace carat::convert
