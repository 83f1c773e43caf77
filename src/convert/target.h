// The files around a conversion's tensors: GGUF metadata, or the texts of a Hugging Face directory.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "convert/convert.h"
#include "io/tensor_writer.h"
#include "model/load.h"

namespace carat::convert {

// What of a checkpoint is text beside its tensors. Taken before the model is loaded.
struct SideFiles {
  std::string tokenizer_path;                       // copied as it is; empty if there is none
  std::string tokenizer_config, generation_config;  // whole texts, or empty
  std::string chat_template;
  std::string name;  // of the model, for people
  // Of a directory, carried into another one as they are: licence and notices, the model card, what
  // processors of images and sound need. File name and contents.
  std::vector<std::pair<std::string, std::string>> others;
};
SideFiles read_side_files(const io::Checkpoint& checkpoint);

// A checkpoint that is being written. Destroyed before finish(), it leaves nothing behind.
class Target {
 public:
  virtual ~Target() = default;
  virtual io::TensorWriter& tensors() = 0;
  virtual void finish() = 0;
};

std::unique_ptr<Target> make_gguf_target(const ConvertOptions& options, const model::Model& model,
                                         const SideFiles& side, std::vector<io::TensorSpec> specs,
                                         const io::WriteOptions& write);
// `config` is the text of config.json.
std::unique_ptr<Target> make_hf_target(const ConvertOptions& options, const model::Model& model,
                                       const SideFiles& side, const Json& config,
                                       std::vector<io::TensorSpec> specs,
                                       const io::WriteOptions& write);

// Throws Error if the target must not be written: it exists (and overwrite is not set, and it is
// not a directory that an unfinished conversion left), its folder does not, or it is one of the
// source's files.
void check_target(const ConvertOptions& options, const io::TensorSource& source);
// Throws Error if the target's disk has less than `bytes` free.
void check_disk_space(const std::string& target, int64_t bytes);

}  // namespace carat::convert
