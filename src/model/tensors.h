// THE table of tensors of the text model: load, convert, quantize, train, synth and inspect walk
// it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/config.h"
#include "tensor/tensor.h"

namespace carat::model {

enum class TensorKind : uint8_t {
  kTokenEmbedding,
  kOutputNorm,
  kPleTable,
  kPleProjection,
  kPleProjectionNorm,
  kAttnNorm,
  kPostAttnNorm,
  kFfnNorm,
  kPostFfnNorm,
  kQ,
  kK,
  kV,
  kO,
  kQNorm,
  kKNorm,
  kGate,
  kUp,
  kDown,
  kRouter,
  kRouterScale,
  kExpertScale,
  kExpertsGateUp,
  kExpertsDown,
  kExpertsNorm,
  kPostDenseNorm,
  kPostExpertsNorm,
  kPleGate,
  kPleOut,
  kPlePostNorm,
  kLayerScalar,
  kLmHead,  // the output matrix where it is not the token embedding
  kCount
};

// What quantization may do with it.
enum class TensorClass : uint8_t {
  kEmbedding,      // token embedding and output matrix
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
  const char* hf;    // name after the prefix, with N for the layer
  const char* gguf;  // name with N for the layer
  TensorClass cls;
  bool per_layer;
  Shape (*shape)(const Config&, int64_t layer);  // slowest first, as in Hugging Face
  Presence (*presence)(const Config&, int64_t layer);
};

std::span<const TensorRow> tensor_table();  // in the order of TensorKind
const TensorRow& row_of(TensorKind kind);

// A tensor of a given model: a row and its layer (-1 for rows outside layers).
struct TensorRef {
  TensorKind kind;
  int64_t layer = -1;
};

// How a checkpoint names the text model's tensors.
enum class Naming : uint8_t {
  kGguf,  // "blk.3.attn_q.weight"
  kHf,    // "model.layers.3.self_attn.q_proj.weight": a text-only checkpoint, as carat writes
  kHfMultimodal,  // "model.language_model.layers.3...": as published
  kHfOld,         // "language_model.model.layers.3..."
};

std::string name_of(TensorRef t, Naming naming);
inline std::string hf_name(TensorRef t) { return name_of(t, Naming::kHf); }
inline std::string gguf_name(TensorRef t) { return name_of(t, Naming::kGguf); }

// Shape that the config gives it, slowest dimension first.
inline Shape shape_of(const Config& config, TensorRef t) {
  return row_of(t.kind).shape(config, t.layer);
}

// All tensors that the model computes with, layer by layer after those outside layers;
// index = Weight::id.
std::vector<TensorRef> required_tensors(const Config& config);

// Number of parameters of those tensors.
int64_t parameter_count(const Config& config);

// Divisors of the rotary frequencies, in GGUF only; made from the config, not a parameter.
inline constexpr const char* kRopeFreqsName = "rope_freqs.weight";

// What a tensor of a checkpoint is to this model.
struct TensorRole {
  enum class Need : uint8_t { kRequired, kSkipped, kUnknown } need = Need::kUnknown;
  TensorRef ref{TensorKind::kCount, -1};  // kRequired
  const char* part = "";  // kSkipped: "vision tower", "K and V of layers that share them", ...
};

// Answers by name, for one model and one way of naming.
class TensorNames {
 public:
  TensorNames(const Config& config, Naming naming);
  [[nodiscard]] TensorRole role(std::string_view name) const;

 private:
  Naming naming_;
  std::unordered_map<std::string, TensorRole> roles_;
};

}  // namespace carat::model
