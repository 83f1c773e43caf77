// How a checkpoint stores the model's parameters: each as one tensor of floats or blocks, or as
// codes, scales and the scales of activations in several. Every reader of checkpoints (load,
// convert, inspect) asks here; nobody else knows the names of such parts.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/json.h"
#include "io/checkpoint.h"
#include "io/tensor_source.h"
#include "model/config.h"
#include "model/tensors.h"

namespace carat::model {

// How quantized modules are written.
enum class Coding : uint8_t {
  kNone,               // floats, or a GGUF file's blocks
  kMobile,             // quant_method "gemma": mobile-transformers
  kCompressedTensors,  // w4a16-ct and mobile-ct
};

// What a Hugging Face config says of quantization (top level or text_config). Throws Error naming
// the key: an unknown method, asymmetric or floating-point weights, a group order, ...
Coding coding_of(const Json& config);

// One parameter. Entries belong to the checkpoint's source.
struct StoredTensor {
  const io::TensorEntry* values = nullptr;  // floats, blocks or codes
  DType dtype = DType::kF32;                // C2, C4, C8 for codes, else values->dtype
  Shape shape;                              // of the parameter: not of its packed codes

  // Of codes only: F32, BF16 or F16, [rows, cols / scale_columns] (experts: [n, rows, ...]).
  const io::TensorEntry* scales = nullptr;
  int64_t scale_columns = 0;
  // Static rounding of what the module reads and gives; 0: none. Finite and not negative.
  float input_scale = 0, output_scale = 0;

  bool is_coded() const { return scales != nullptr; }
};

// How a checkpoint names its tensors, told by where the token embedding is. Throws Error if it is
// nowhere.
Naming naming_of(const io::Checkpoint& checkpoint);

// Static rounding of cached keys and values; 0: none.
struct KvScales {
  float k = 0, v = 0;
};

// The parameters of one open checkpoint. Outlived by its source. Const after construction.
class StoredTensors {
 public:
  // Throws Error if the token embedding is under no name that a checkpoint gives it, or if the
  // parts of a module do not fit together.
  StoredTensors(const io::Checkpoint& checkpoint, const Config& config);

  Naming naming() const { return naming_; }
  Coding coding() const { return coding_; }

  // A parameter of the text model; nothing if the checkpoint lacks it. Its shape is the file's.
  std::optional<StoredTensor> find(TensorRef ref) const;
  // Any parameter by the name that it has unquantized ("model.vision_tower....weight").
  std::optional<StoredTensor> find(const std::string& name) const;
  // Of the layer's own cache; zeros if the checkpoint has none.
  KvScales kv_scales(int64_t layer) const;

  // What a tensor of the file is to the text model. Scales, shapes and activation scales are
  // kRequired with the ref of the parameter that they belong to, or kSkipped with its part.
  TensorRole role(std::string_view entry_name) const;

 private:
  // `columns`: the parameter's, which a row of bytes does not tell (0: unknown).
  std::optional<StoredTensor> find(const std::string& name, int64_t columns) const;
  std::optional<StoredTensor> find_bytes(const std::string& name, int64_t columns) const;
  std::optional<StoredTensor> find_words(const std::string& name) const;
  int64_t tower_columns(std::string_view name) const;
  float activation_scale(const std::string& name, const io::TensorEntry* values) const;
  void check_part(const io::TensorEntry& entry) const;

  const io::TensorSource* source_;
  const Config config_;
  Coding coding_ = Coding::kNone;
  Naming naming_ = Naming::kGguf;
  TensorNames names_;
  int64_t audio_dim_ = 0, vision_dim_ = 0, vision_ffn_dim_ = 0;  // of the towers
};

}  // namespace carat::model
