// A safetensors checkpoint, one file or sharded, as a source of tensors.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/mapped_source.h"

namespace carat::io {

class SafetensorsSource final : public MappedSource {
 public:
  // Text pairs of the first file's "__metadata__".
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }

 private:
  friend std::unique_ptr<SafetensorsSource> open_safetensors(const std::string& path);
  friend std::unique_ptr<SafetensorsSource> open_safetensors_index(const std::string& path);
  SafetensorsSource() = default;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

// One .safetensors file. Throws Error.
std::unique_ptr<SafetensorsSource> open_safetensors(const std::string& path);

// A model.safetensors.index.json and the files beside it. The index and the files must name the
// same tensors, each in one file. Throws Error.
std::unique_ptr<SafetensorsSource> open_safetensors_index(const std::string& path);

}  // namespace carat::io
