// The header of a safetensors file and the index of a sharded checkpoint, checked. Grammar and
// limits: docs/formats.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "io/tensor_source.h"

namespace carat::io {

inline constexpr int64_t kSafetensorsMaxHeader = 100'000'000;
inline constexpr int64_t kSafetensorsMaxTensors = 1 << 18;
inline constexpr int64_t kSafetensorsMaxName = 1024;  // bytes
inline constexpr int kMaxShards = 1024;

struct SafetensorsHead {
  std::vector<TensorEntry> entries;                           // in the order of their data
  std::vector<std::pair<std::string, std::string>> metadata;  // of the key "__metadata__"
  int64_t data_begin = 0;
};

// Reads the header only. Throws Error with the file's path.
SafetensorsHead parse_safetensors(const RandomAccessFile& file);

// The text of model.safetensors.index.json.
struct SafetensorsIndex {
  std::vector<std::string> files;  // plain names beside the index, sorted, unique
  struct Tensor {
    std::string name;
    int file;  // index into files
  };
  std::vector<Tensor> tensors;  // in the order of the text, unique
};

SafetensorsIndex parse_safetensors_index(std::string_view text);

}  // namespace carat::io
