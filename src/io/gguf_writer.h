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

// Tensor names have at most 63 bytes (ggml's limit). A shape without dimensions is written as [1].
// Data are aligned to 32 bytes, the last tensor's padding included.
class GgufWriter final : public TensorWriter {
 public:
  // Writes the head. `fields` is not needed afterwards. Throws Error.
  GgufWriter(const std::string& path, const GgufFields& fields, std::vector<TensorSpec> specs,
             const WriteOptions& options = {});

 private:
  friend int64_t gguf_file_bytes(const GgufFields& fields, std::vector<TensorSpec> specs);
  GgufWriter(std::vector<TensorSpec> specs, const WriteOptions& options);
  // What stands before and after the metadata.
  struct Head {
    std::string start, tensors;
  };
  // Fixes where everything lies. `path` is for errors.
  Head lay_out(const GgufFields& fields, const std::string& path);
  void complete() override;
  int file_ = 0;
  int64_t end_ = 0;  // of the file
};

}  // namespace carat::io
