// Gemma 4's vision and audio towers as data: their configs and THE table of their tensors. A
// multimodal Hugging Face checkpoint holds them beside the text model; llama.cpp reads them from a
// GGUF file of their own ("mmproj", architecture "clip"), some under other names and in another
// order. Sources: docs/formats.md.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "io/gguf_metadata.h"
#include "io/tensor_source.h"
#include "tensor/tensor.h"

namespace carat::model {

struct VisionConfig {
  bool unified = false;  // 12B: no encoder, one matrix per patch of `model_patch()` pixels
  int64_t dim = 0;       // width of the tower; unified: of the patch embedding
  int64_t ffn_dim = 0, n_layers = 0, n_heads = 0, head_dim = 0;  // unified: 0
  int64_t patch = 16;                                            // pixels
  int64_t pooling = 3;      // patches that become one token, each way
  int64_t n_positions = 0;  // rows of the position table, for each axis
  bool clipped = false;     // linear layers have bounds for what they read and give
  bool standardized = false;
  float norm_eps = 1e-6f;
  float rope_theta = 100.0f;

  int64_t model_patch() const { return unified ? patch * pooling : patch; }
  bool operator==(const VisionConfig&) const = default;
};

struct AudioConfig {
  bool unified = false;                       // 12B: raw samples times one matrix
  int64_t dim = 0;                            // width of the tower; unified: samples per token
  int64_t n_layers = 0, n_heads = 0;          // unified: 0
  int64_t conv_channels[2] = {128, 32};       // of the two convolutions before the layers
  int64_t n_mel_bins = 128, conv_kernel = 5;  // kernel: of the layers' depthwise convolution
  int64_t out_dim = 0;                        // of output_proj; unified: dim
  bool clipped = true;
  float norm_eps = 1e-6f;
  // In no GGUF key: these values there.
  int64_t chunk = 12, context_left = 13, context_right = 0;
  float logit_cap = 50.0f, residual_weight = 0.5f;

  int64_t ffn_dim() const { return 4 * dim; }
  int64_t head_dim() const { return dim / n_heads; }
  bool operator==(const AudioConfig&) const = default;
};

struct TowersConfig {
  int64_t text_dim = 0;  // residual width of the text model that reads the tokens
  std::optional<VisionConfig> vision;
  std::optional<AudioConfig> audio;

  // Throws Error if a value is out of range, or there is no tower.
  void validate() const;
  bool operator==(const TowersConfig&) const = default;
};

// vision_config, audio_config and the text model's width out of a multimodal config.json. Throws
// Error if it has neither tower. Validated.
TowersConfig towers_from_hf(const Json& config);
bool has_towers(const Json& config);
// A config.json that holds only the towers (with the text model's width in text_config).
Json towers_to_hf(const TowersConfig& config);
// Of an mmproj file. Some facts are in no key and come from the tensors' shapes and presence.
// Validated.
TowersConfig towers_from_gguf(const io::GgufMetadata& metadata, const io::TensorSource& tensors);
// The towers of E2B, E4B, 12B, 26B-A4B and 31B, and of tiny (both, layered) and tinykv (both
// without encoder) for tests.
TowersConfig towers_of_size(std::string_view name);

// -- tensors --------------------------------------------------------------------------------------

// How an mmproj file's values follow from Hugging Face's.
enum class TowerChange : uint8_t {
  kNone,
  kPlanes,    // columns of each row from row, column, colour to colour, row, column
  kSwapAxes,  // [positions, 2, dim] to [2, positions, dim]
  kSoftplus,  // ln(1 + e^x) in place of x
};

struct TowerRow {
  const char* hf;    // after the prefix of its part, N for the layer
  const char* gguf;  // N for the layer
  enum class Part : uint8_t { kVision, kAudio, kVisionEmbed, kAudioEmbed } part;
  bool unified;  // in towers without an encoder, or in the others
  bool per_layer;
  Shape (*hf_shape)(const TowersConfig&);
  Shape (*gguf_shape)(const TowersConfig&);  // null: as hf_shape
  // A linear layer's matrix: BF16 in mmproj files, and in clipped towers it has four bounds beside
  // it. All else is F32 there.
  enum class Kind : uint8_t { kLinear, kMatrix, kFloat, kStandard } kind;
  TowerChange change;
};

std::span<const TowerRow> tower_table();

// Bounds of a linear layer in clipped towers: one-element tensors.
enum class TowerClip : uint8_t { kNone, kInputMin, kInputMax, kOutputMin, kOutputMax };

// One tensor of given towers.
struct TowerTensor {
  const TowerRow* row = nullptr;
  int64_t layer = -1;
  TowerClip clip = TowerClip::kNone;
};

// All tensors that the config calls for, in the order of the table, layer by layer.
std::vector<TowerTensor> tower_tensors(const TowersConfig& config);

// "model.vision_tower.encoder.layers.3.self_attn.q_proj.linear.weight"
std::string tower_hf_name(const TowerTensor& t);
// "v.blk.3.attn_q.weight"
std::string tower_gguf_name(const TowerTensor& t);
Shape tower_hf_shape(const TowersConfig& config, const TowerTensor& t);  // empty: a scalar
Shape tower_gguf_shape(const TowersConfig& config, const TowerTensor& t);
// Type in published mmproj files: BF16 or F32.
DType tower_gguf_type(const TowerTensor& t);

// Source column of each column of a row of patches of `side` pixels when they are put in planes.
std::vector<int32_t> planes_permutation(int64_t side);

}  // namespace carat::model
