// The head of a GGUF v3 file, checked: every count, length, type, offset and size in it was proved
// to fit the file before it was used. Grammar and limits: docs/formats.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/gguf_metadata.h"
#include "io/tensor_source.h"

namespace carat::io {

inline constexpr uint32_t kGgufMagic = 0x46554747;  // "GGUF"
inline constexpr uint32_t kGgufVersion = 3;
inline constexpr int64_t kGgufDefaultAlignment = 32;
inline constexpr int64_t kGgufMaxAlignment = int64_t{1} << 20;
inline constexpr int64_t kGgufMaxKeys = 1 << 16;
inline constexpr int64_t kGgufMaxTensors = 1 << 18;
inline constexpr int64_t kGgufMaxKeyBytes = 65535;
inline constexpr int64_t kGgufMaxTensorName = 63;  // bytes, as in ggml
inline constexpr int kMaxDims = 4;
inline constexpr int64_t kGgufMaxParts = 1000;

// Which part of a model a file is: keys split.no, split.count and split.tensors.count.
struct GgufSplit {
  int64_t number = 0;    // of this part, from 0
  int64_t count = 1;     // parts
  int64_t tensors = -1;  // in all parts together; -1: the file does not say
};

struct GgufHead {
  GgufMetadata metadata;             // views into the parsed bytes
  std::vector<TensorEntry> entries;  // in the order of their data
  int64_t alignment = kGgufDefaultAlignment;
  int64_t data_begin = 0;  // of the data section, from the start of the file
  GgufSplit split;
};

// Parses the whole file `bytes`; `path` is for messages. Allocates in proportion to the keys and
// tensors that are really there, at most about ten times the bytes of the head. The returned views
// point into `bytes`. Throws Error.
GgufHead parse_gguf(std::span<const std::byte> bytes, const std::string& path);

}  // namespace carat::io
