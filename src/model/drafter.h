// Gemma 4's drafters ("assistants") as data: a small model that guesses the next tokens of a large
// one, reading its last hidden state and its keys and values. Hugging Face: model_type
// gemma4_assistant or gemma4_unified_assistant; GGUF: architecture gemma4-assistant.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "io/gguf_metadata.h"
#include "io/tensor_source.h"
#include "model/config.h"
#include "model/tensors.h"

namespace carat::model {

struct DrafterConfig {
  int64_t backbone_dim = 0;  // residual width of the model that it drafts for
  bool unified = false;      // for the 12B
  // Layers, widths, heads and rotation as of a text model that owns keys and values; a drafter has
  // none: n_kv_heads are those of the target's cache. No per-layer embeddings, no experts.
  Config layers;
  // The token embedding's rows in groups by meaning, of which only the best are scored; 0: all are.
  int64_t n_centroids = 0, n_active_centroids = 0;

  bool has_centroids() const { return n_centroids > 0; }
  // Throws Error if a value is out of range or two of them disagree.
  void validate() const;
  bool operator==(const DrafterConfig&) const = default;
};

bool is_drafter(const Json& config);                // of a config.json
bool is_drafter(const io::GgufMetadata& metadata);  // of a GGUF file

DrafterConfig drafter_from_hf(const Json& config);
Json drafter_to_hf(const DrafterConfig& config);
// Whether K is V in the target's global layers is in no key: it is where local and global layers
// have different numbers of K/V heads, as in all published ones. Centroids are there if their
// tensors are.
DrafterConfig drafter_from_gguf(const io::GgufMetadata& metadata, const io::TensorSource& tensors);
// E2B, E4B, 12B, 26B-A4B, 31B: the published drafters; tiny, tinykv, tinymoe: of the test models.
DrafterConfig drafter_of_size(std::string_view name);

// -- tensors --------------------------------------------------------------------------------------

struct DrafterRow {
  const char* hf;    // whole name, N for the layer
  const char* gguf;  // N for the layer
  TensorClass cls;
  bool per_layer;
  Shape (*shape)(const DrafterConfig&, int64_t layer);  // slowest first, as in Hugging Face
  bool centroids;  // only with centroids; optional in GGUF, where other programs do without
  bool integers;   // token ids: I64 in Hugging Face, I32 in GGUF
};

std::span<const DrafterRow> drafter_table();

struct DrafterTensor {
  const DrafterRow* row = nullptr;
  int64_t layer = -1;
};

// All tensors that the config calls for, layer by layer after those outside layers.
std::vector<DrafterTensor> drafter_tensors(const DrafterConfig& config);
std::string drafter_hf_name(const DrafterTensor& t);
std::string drafter_gguf_name(const DrafterTensor& t);
inline Shape drafter_shape(const DrafterConfig& config, const DrafterTensor& t) {
  return t.row->shape(config, t.layer);
}
int64_t drafter_parameter_count(const DrafterConfig& config);

}  // namespace carat::model
