// MODEL on the command line: a file, a directory, or nothing at all for the built-in model.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "io/checkpoint.h"
#include "model/load.h"
#include "text/tokenizer.h"

namespace carat::app {

// What the user typed; nothing: the nano model inside the program.
using ModelName = std::optional<std::string>;

// Opens what `model` names. Throws Error.
io::Checkpoint open_model_checkpoint(const ModelName& model);
model::Model open_model(const ModelName& model);

// The tokenizer of a checkpoint, or of a tokenizer.json. Throws Error if there is none.
std::shared_ptr<const text::Tokenizer> open_tokenizer(const ModelName& model);

// Throws Error if the model came without a tokenizer.
const text::Tokenizer& require_tokenizer(const model::Model& model);

// How messages name the model.
inline std::string display_name(const ModelName& model) {
  return model ? *model : "the built-in model";
}

}  // namespace carat::app
