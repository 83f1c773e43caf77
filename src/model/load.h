// From a checkpoint to a model that can run: the config, the weights bound to the file's bytes, the
// tokenizer and the checkpoint's own defaults.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/config.h"
#include "model/pack.h"
#include "model/weights.h"
#include "text/tokenizer.h"

namespace carat::model {

// What the checkpoint says about generation; Gemma 4's published values where it says nothing.
struct GenerationDefaults {
  float temperature = 1.0f;           // 0: greedy
  int64_t top_k = 64;                 // 0: no limit
  float top_p = 0.95f;                // 1: no limit
  std::vector<int32_t> stop_ids;      // ascending
  std::vector<int32_t> suppress_ids;  // ascending, never sampled
};

// Const after loading; may be shared between threads.
struct Model {
  std::string path;
  io::CheckpointKind kind = io::CheckpointKind::kGguf;
  Weights weights;
  // Null if the checkpoint has none: such a model computes logits of token ids.
  std::shared_ptr<const text::Tokenizer> tokenizer;
  GenerationDefaults generation;
  // For people, a sentence each: "skipped vision tower (355 tensors)".
  std::vector<std::string> notes;
  std::shared_ptr<const io::TensorSource> source;

  const Config& config() const { return weights.config; }
};

struct LoadOptions {
  // Packs quantized matrices into tiles (pack.h), for computing with kernels::CpuOps; without it
  // they stay in the file's mapping, for whoever reads rows. packing.only_codes leaves blocks
  // there: what computes with a model must pack at least the codes.
  bool pack = false;
  PackOptions packing;
};

// Opens a .gguf file, a .safetensors file beside its config.json, or a Hugging Face directory.
// Throws Error with the path.
Model load_model(const std::string& path, const LoadOptions& options = {});
Model load_model(io::Checkpoint checkpoint, const LoadOptions& options = {});

// The parts, for callers that need only one.

Config config_of(const io::Checkpoint& checkpoint);

// Walks the tensor table: each required parameter must be there with exactly the shape that the
// config gives it and a type that the kernels compute with; a tensor that the table does not know
// is an error; one that text does not need is counted in a note. Nothing is copied but vectors
// (norms, scalars), which become F32. What is only looked up (per-layer embeddings, and the token
// embedding beside a separate output matrix) is not mapped: its rows are read from the file. Codes
// are neither mapped nor copied: pack_weights brings them to memory. Nor are joined experts and
// floats at odd places of a file: load_model copies them for whoever computes. `source` is the one
// that `stored` looks at.
Weights bind_weights(const Config& config, const StoredTensors& stored,
                     std::shared_ptr<const io::TensorSource> source,
                     std::vector<std::string>* notes);

// Only rows of it are read: no product.
bool is_looked_up_only(const Config& config, TensorKind kind);

// Null if the file has no tokenizer.
std::shared_ptr<const text::Tokenizer> tokenizer_of(const io::Checkpoint& checkpoint);
text::Vocab vocab_from_gguf(const io::GgufMetadata& metadata);

}  // namespace carat::model
