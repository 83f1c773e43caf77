// Any bytes as a safetensors file: refused with an Error, or its tensors fill it exactly.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "io/safetensors_parse.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto file = carat::memory_file("fuzz.safetensors", bytes);
  try {
    const carat::io::SafetensorsHead head = carat::io::parse_safetensors(*file);
    int64_t end = head.data_begin;
    for (const carat::io::TensorEntry& t : head.entries) {
      CHECK(t.offset == end && t.bytes == carat::byte_count(t.dtype, t.shape));
      std::vector<std::byte> read(static_cast<size_t>(t.bytes));
      file->read(t.offset, read);
      end += t.bytes;
    }
    CHECK(end == file->size());
  } catch (const carat::Error&) {
  }
  return 0;
}
