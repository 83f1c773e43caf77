// MODEL on the command line: a file, a directory, or nothing at all for the built-in model.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/thread_pool.h"
#include "io/checkpoint.h"
#include "model/load.h"
#include "text/tokenizer.h"

namespace carat::app {

// What the user typed; nothing: the nano model inside the program.
using ModelName = std::optional<std::string>;

// Opens what `model` names. Throws Error.
io::Checkpoint open_model_checkpoint(const ModelName& model);

// How matrices are packed: by the threads of `pool`, as long as a tenth of the free memory stays
// for everything else.
model::PackOptions pack_options(ThreadPool& pool);

// Bytes that keys and values may take: mapped weights are yet to become resident; of the rest a
// tenth stays for everything else. At least 1.
int64_t kv_memory(const model::Model& model);

// Loads a model to compute with: its matrices are packed by the threads of `pool`, with a line of
// progress, unless `pack` is false (codes are packed even so) or memory is too short, which a note says.
model::Model load_to_compute(io::Checkpoint checkpoint, ThreadPool& pool, bool pack = true);
model::Model open_model(const ModelName& model, ThreadPool& pool, bool pack = true);

// The model's notes on standard error.
void print_notes(const model::Model& model);

// The tokenizer of a checkpoint, or of a tokenizer.json. Throws Error if there is none.
std::shared_ptr<const text::Tokenizer> open_tokenizer(const ModelName& model);

// Throws Error if the model came without a tokenizer.
const text::Tokenizer& require_tokenizer(const model::Model& model);

// How messages name the model.
inline std::string display_name(const ModelName& model) {
  return model ? *model : "the built-in model";
}

}  // namespace carat::app
