// A checkpoint that is being written: a GGUF file, or a Hugging Face directory with its texts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "convert/convert.h"
#include "convert/side_files.h"
#include "io/gguf_writer.h"
#include "io/part_file.h"
#include "io/tensor_writer.h"
#include "model/load.h"

namespace carat::convert {

// What a target is made of.
struct TargetParts {
  std::string path;  // of the .gguf file or the directory
  bool is_folder = false;
  io::GgufFields fields;              // of a file
  Texts texts;                        // of a directory, config.json among them
  std::vector<io::TensorSpec> specs;  // in the order in which they will be written
  // The divisors of the rotary frequencies, which only GGUF has: written behind `specs` by the
  // target itself. May be empty.
  std::vector<float> rope_freqs;
  int64_t max_file_bytes = INT64_MAX;  // of tensors in a file
};

// Of the model that is converted.
TargetParts gguf_parts(const ConvertOptions& options, const model::Model& model,
                       const SideFiles& side, std::vector<io::TensorSpec> specs);
TargetParts hf_parts(const ConvertOptions& options, const model::Model& model,
                     const SideFiles& side, const Json& config, std::vector<io::TensorSpec> specs);

// `specs`, and that of rope_freqs.
std::vector<io::TensorSpec> all_specs(const TargetParts& parts);
// Final paths of the files of tensors, in order.
std::vector<std::string> file_paths(const TargetParts& parts);
// Whether a reader finds a whole checkpoint, perhaps an older one, in files of these paths: in the
// directory `folder`, or, where that is empty, GGUF.
bool is_published(const std::string& folder, const std::vector<std::string>& files);

// Destroyed before finish(), it leaves nothing behind, unless keep() was called.
class Target {
 public:
  // `resumable`: as in io::WriteOptions, of texts too.
  Target(TargetParts parts, bool resumable);
  ~Target();
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  io::TensorWriter& tensors() { return *writer_; }
  void keep() { writer_->keep(); }
  // The directory is this one's too, although it was there already.
  void own_folder() { made_ = parts_.is_folder; }

  // REQUIRES: all `specs` are written. All bytes reach the disk under temporary names.
  void flush();
  // Flushes if that was not done, then gives the files their names: of a directory the weights, the
  // index, the texts and config.json at last. Between the first and the last of them there is no
  // config.json (of a split file: no first part), so that no reader takes a mix of old and new
  // files for a checkpoint. If a resumable one fails or its process ends there, what has no name
  // yet stays.
  void finish();

 private:
  void clean_up();

  TargetParts parts_;
  bool resumable_ = false, made_ = false, flushed_ = false, finished_ = false;
  std::vector<std::unique_ptr<io::PartFile>> texts_;  // config.json last
  std::unique_ptr<io::TensorWriter> writer_;
};

// Throws Error if the target must not be written: it exists (and overwrite is not set, and it is
// not a directory that an unfinished conversion left), its folder does not, or it is one of the
// source's files.
void check_target(const ConvertOptions& options, const io::TensorSource& source);
// The same for the files that the target turned out to have.
void check_files(const TargetParts& parts, const ConvertOptions& options,
                 const std::vector<std::string>& source_paths);
// Throws Error if the target's disk has less than `bytes` free.
void check_disk_space(const std::string& target, int64_t bytes);

}  // namespace carat::convert
