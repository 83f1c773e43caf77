// A GGUF v3 file as a source of tensors with typed metadata. A model in several files is one
// source: any of its parts opens all of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/gguf_metadata.h"
#include "io/mapped_source.h"

namespace carat::io {

// Mapped: opening reads the heads only, and copies none of them. The metadata's views live as long
// as the file.
class GgufFile final : public MappedSource {
 public:
  // Throws Error if the file is not a sound GGUF file, or if it is part of a split one whose other
  // parts are missing, belong to another model or do not add up.
  explicit GgufFile(const std::string& path);

  // Of the first part: the others have none of their own.
  const GgufMetadata& metadata() const { return metadata_; }
  // Files that the model lies in.
  int64_t n_parts() const { return static_cast<int64_t>(shards().size()); }
  // Gives back the resident pages of the heads (about 16 MB with a vocabulary of 262144): for
  // callers that took from them what they need. They stay readable.
  void release_metadata() const;

 private:
  struct Part;

  Part open_part(const std::string& path);
  void join(std::vector<Part> parts);

  GgufMetadata metadata_;
  std::vector<int64_t> head_bytes_;  // of each shard
};

std::unique_ptr<GgufFile> open_gguf(const std::string& path);

}  // namespace carat::io
