// THE table of tensors of the text model: load, convert, quantize, train, synth and inspect walk it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "model/config.h"
#include "tensor/tensor.h"

namespace carat::model {

enum class TensorKind : uint8_t {
  kTokenEmbedding, kOutputNorm, kPleTable, kPleProjection, kPleProjectionNorm,
  kAttnNorm, kPostAttnNorm, kFfnNorm, kPostFfnNorm,
  kQ, kK, kV, kO, kQNorm, kKNorm,
  kGate, kUp, kDown,
  kRouter, kRouterScale, kExpertScale, kExpertsGateUp, kExpertsDown,
  kExpertsNorm, kPostDenseNorm, kPostExpertsNorm,
  kPleGate, kPleOut, kPlePostNorm, kLayerScalar,
  kCount
};

// What quantization may do with it.
enum class TensorClass : uint8_t {
  kEmbedding,      // token embedding, also the output matrix
  kPleTable,       // looked up only
  kPleProjection,  // per_layer_model_projection
  kMatrix,         // linear layers, experts included
  kKeep,           // norms, scalars, router: F32 in GGUF
};

enum class Presence : uint8_t {
  kRequired,
  kUnused,  // may be in the file, never needed (K, V of layers that share)
  kAbsent,  // must not be there: the config has no such tensor
};

struct TensorRow {
  TensorKind kind;
  const char* hf;      // name under "model.language_model." with N for the layer
  const char* gguf;    // name with N for the layer
  TensorClass cls;
  bool per_layer;
  Shape (*shape)(const Config&, int64_t layer);        // slowest first, as in Hugging Face
  Presence (*presence)(const Config&, int64_t layer);
};

std::span<const TensorRow> tensor_table();             // in the order of TensorKind
const TensorRow& row_of(TensorKind kind);

// A tensor of a given model: a row and its layer (-1 for rows outside layers).
struct TensorRef {
  TensorKind kind;
  int64_t layer = -1;
};
std::string hf_name(TensorRef t);    // "model.language_model.layers.3.self_attn.q_proj.weight"
std::string gguf_name(TensorRef t);  // "blk.3.attn_q.weight"

// All tensors that the model computes with, in file order; index = Weight::id.
std::vector<TensorRef> required_tensors(const Config& config);

}  // namespace carat::model
