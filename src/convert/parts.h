// Writing a checkpoint that is small and needs no plan: towers, drafters.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "convert/convert.h"
#include "io/gguf_writer.h"
#include "io/tensor_writer.h"

namespace carat::convert {

// A GGUF file or a Hugging Face directory that is being written. Destroyed before finish(), it
// leaves nothing behind.
class PartWriter {
 public:
  using Texts = std::vector<std::pair<std::string, std::string>>;  // file name, contents

  static std::unique_ptr<PartWriter> gguf(const std::string& path, const io::GgufFields& fields,
                                          std::vector<io::TensorSpec> specs);
  // All tensors in the order in which they will be written; sorted for safetensors by the caller.
  static std::unique_ptr<PartWriter> hf(const std::string& folder, const Texts& texts,
                                        std::vector<io::TensorSpec> specs, int64_t max_shard_bytes);
  virtual ~PartWriter() = default;

  virtual io::TensorWriter& tensors() = 0;
  virtual void finish() = 0;
};

// Throws Error naming the tensor and --accept rounded-weights if weights changed and nobody asked
// for it. Q4_0 is only written where it was asked for; a 4-bit lattice in bfloat16 counts as kept.
void check_rounded(const TensorReport& tensor, const ConvertOptions& options, Losses* happened);

// Adds a tensor to the report and its figures to the totals.
void add_tensor(ConvertReport& report, TensorReport tensor, int64_t source_bytes);

}  // namespace carat::convert
