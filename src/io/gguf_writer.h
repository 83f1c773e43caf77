// Writes GGUF v3: metadata, then tensors, as a stream.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "io/gguf_metadata.h"
#include "io/tensor_writer.h"

namespace carat::io {

// The metadata of a file to be written, encoded as it is added. Keys keep their order. Adding a key
// twice, or "general.alignment" (the writer's own), is a bug; a key that is empty, not UTF-8 or
// longer than 65535 bytes is an Error.
class GgufFields {
 public:
  void add_u16(std::string_view key, uint16_t value);
  void add_u32(std::string_view key, uint32_t value);
  void add_i32(std::string_view key, int32_t value);
  void add_u64(std::string_view key, uint64_t value);
  void add_f32(std::string_view key, float value);
  void add_bool(std::string_view key, bool value);
  void add_string(std::string_view key, std::string_view value);
  void add_u32s(std::string_view key, std::span<const uint32_t> values);
  void add_i32s(std::string_view key, std::span<const int32_t> values);
  void add_f32s(std::string_view key, std::span<const float> values);
  void add_bools(std::string_view key, const std::vector<bool>& values);
  // Any sized range of what converts to std::string_view (GgufStrings too).
  template <class Strings>
  void add_strings(std::string_view key, const Strings& strings) {
    begin_array(key, GgufType::kString, static_cast<uint64_t>(strings.size()));
    for (std::string_view s : strings) put_text(s);
  }
  // A value read from another file, as it is.
  void add_value(std::string_view key, const GgufValue& value);

  int64_t count() const { return count_; }
  bool has(std::string_view key) const { return keys_.contains(std::string(key)); }
  const std::string& bytes() const { return bytes_; }

 private:
  void begin_key(std::string_view key, GgufType type);
  void begin_array(std::string_view key, GgufType type, uint64_t count);
  void put(const void* data, size_t n) { bytes_.append(static_cast<const char*>(data), n); }
  void put_text(std::string_view text);

  std::string bytes_;
  int64_t count_ = 0;
  std::unordered_set<std::string> keys_;
};

// Bytes of the file that GgufWriter writes. Throws Error as it does.
[[nodiscard]] int64_t gguf_file_bytes(const GgufFields& fields, std::vector<TensorSpec> specs);

// Paths of the files that GgufWriter makes: `path`, or, where the tensors do not fit one file,
// PATH-00001-of-0000N.gguf and so on (PATH without its own ".gguf"). Throws Error: too many parts.
[[nodiscard]] std::vector<std::string> gguf_paths(const std::string& path,
                                                  const std::vector<TensorSpec>& specs,
                                                  int64_t max_part_bytes);

// Tensor names have at most 63 bytes (ggml's limit). A shape without dimensions is written as [1].
// Data are aligned to 32 bytes, the last tensor's padding included.
//
// Parts of a split file have the names and the keys split.no, split.count and split.tensors.count
// that llama.cpp looks for; all other metadata are in the first one. No tensor is split.
class GgufWriter final : public TensorWriter {
 public:
  // Writes the heads. `fields` is not needed afterwards. A file holds at most `max_part_bytes` of
  // tensors, or one tensor. Throws Error.
  GgufWriter(const std::string& path, const GgufFields& fields, std::vector<TensorSpec> specs,
             const WriteOptions& options = {}, int64_t max_part_bytes = INT64_MAX);

 private:
  friend int64_t gguf_file_bytes(const GgufFields& fields, std::vector<TensorSpec> specs);
  GgufWriter(std::vector<TensorSpec> specs, const WriteOptions& options);
  struct Part {
    std::string head;  // all that stands before the tensors' data
    int64_t end = 0;   // of the file
  };
  // Fixes where everything lies, in files that begin with these tensors. `path` is for errors.
  std::vector<Part> lay_out(const GgufFields& fields, const std::vector<size_t>& firsts,
                            const std::string& path);
  // The tensors' descriptions, and their slots with offsets from the beginning of the data.
  std::string describe(int file, size_t first, size_t last, const std::string& path,
                       std::vector<Slot>* slots, int64_t* data_bytes) const;
  void complete() override;
  void retract() override;

  std::vector<int64_t> ends_;  // of the files
};

}  // namespace carat::io
