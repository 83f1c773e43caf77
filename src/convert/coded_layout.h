// The Hugging Face kinds that hold codes: which parameters are coded and in how many bits, the
// names and shapes of a module's parts, and what config.json says of them. What is published for
// each kind stands in docs/formats.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "io/tensor_writer.h"
#include "model/config.h"
#include "model/tensors.h"

namespace carat::convert {

enum class CodedKind : uint8_t { kW4A16, kMobileTransformers, kMobileCt };

// Whether the kind is one of the two that round activations.
constexpr bool is_mobile(CodedKind kind) { return kind != CodedKind::kW4A16; }

// How a parameter is coded.
struct CodedLayout {
  DType codes = DType::kC4;   // C2, C4 or C8
  int64_t scale_columns = 0;  // of a row that share a scale
  DType scales = DType::kBF16;

  bool operator==(const CodedLayout&) const = default;
};

// Throws Error if the kind has no form for a model of this architecture: the mobile kinds were
// published for E2B and E4B only, whose bits depend on the layer.
void check_architecture(CodedKind kind, const model::Config& config);

// Nothing for a parameter that stays a float. REQUIRES: check_architecture.
std::optional<CodedLayout> coded_layout(CodedKind kind, const model::Config& config,
                                        model::TensorRef ref);

// The tensors that one coded module becomes.
struct CodedParts {
  std::string module;            // "model.layers.0.mlp.up_proj"
  io::TensorSpec codes, scales;  // scales: [..., rows, cols / scale_columns]
  // I64: the parameter's own shape. Only of packed codes of compressed-tensors.
  std::optional<io::TensorSpec> shape;
  // F32 scalars; empty where the kind has none. In mobile-transformers every linear layer has both,
  // 0 meaning none; in mobile-ct they are written only if they are not 0.
  std::string input_scale, output_scale;
};

// `name` is the parameter's unquantized name ("....weight", or "....experts.down_proj"). Throws
// Error if a row is not whole words of the kind.
CodedParts coded_parts(CodedKind kind, const std::string& name, const Shape& shape,
                       const CodedLayout& layout, bool is_table);

// Scales of a layer's cached keys and values: "k_cache_scale", or "v_cache_scale". Only in
// mobile-transformers.
std::string cache_scale_name(model::Naming naming, int64_t layer, char k_or_v);

// One coded module, for config.json.
struct CodedModule {
  std::string name;
  CodedLayout layout;
  bool input_scale = false, output_scale = false;
};

// The quantization_config of a checkpoint that codes these modules. `kept` names what stays float
// for the reader's sake: modules (or their beginnings) that look like linear layers and are not
// coded.
Json quantization_config(CodedKind kind, const model::Config& config, model::Naming naming,
                         const std::vector<CodedModule>& modules,
                         const std::vector<std::string>& kept);

// The order in which safetensors of mixed element sizes are all aligned: smaller first. Tensors of
// one rank keep their order. REQUIRES: bytes of the tensor.
int alignment_rank(const io::TensorSpec& spec);

}  // namespace carat::convert
