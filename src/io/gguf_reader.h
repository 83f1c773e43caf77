// A GGUF v3 file as a source of tensors with typed metadata.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "io/gguf_metadata.h"
#include "io/mapped_source.h"

namespace carat::io {

// Mapped: opening reads the head only, and copies none of it. The metadata's views live as long as
// the file.
class GgufFile final : public MappedSource {
 public:
  // Throws Error if the file is not a sound GGUF file.
  explicit GgufFile(const std::string& path);

  const GgufMetadata& metadata() const { return metadata_; }
  int64_t alignment() const { return alignment_; }
  // First byte of the data section; the head is everything before.
  int64_t data_begin() const { return data_begin_; }
  // Gives back the resident pages of the head (about 16 MB with a vocabulary of 262144): for
  // callers that took from it what they need. It stays readable.
  void release_metadata() const;

 private:
  GgufMetadata metadata_;
  int64_t alignment_ = 0;
  int64_t data_begin_ = 0;
};

std::unique_ptr<GgufFile> open_gguf(const std::string& path);

}  // namespace carat::io
