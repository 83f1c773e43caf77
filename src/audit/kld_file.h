// llama.cpp's files of reference predictions: what `llama-perplexity --kl-divergence-base FILE`
// writes and `--kl-divergence` reads (customary extension .kld). All numbers are little-endian.
//
//   file := "_logits_" u32:context i32:vocabulary i32:chunks
//           i32:token{chunks * context}  row{chunks * rows}      rows = context - 1 - context / 2
//   row  := f32:scale f32:floor u16:code{vocabulary, rounded up to even}
//
// The text is cut into chunks of `context` tokens. Models read <bos> in place of a chunk's first
// token, whatever stands in the file. Rows exist for the positions context / 2 to context - 2 of a
// chunk; the row of position i says what follows token i. log p(v) = scale * code[v] + floor.
// Logits more than 16 below the largest are raised to that first and get code 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"

namespace carat::audit {

// One row, in the file's memory.
struct KldRow {
  float scale = 0;
  float floor = 0;
  const std::byte* codes = nullptr;

  uint16_t code(int64_t v) const {
    uint16_t c;
    std::memcpy(&c, codes + 2 * v, sizeof(c));
    return c;
  }
  // In float, as llama.cpp computes it.
  float log_p(int64_t v) const { return scale * static_cast<float>(code(v)) + floor; }
};

// A file of that kind, mapped: opening it reads head and tokens, rows come from the disk when they
// are asked for. Const methods may be called from several threads.
class KldFile {
 public:
  // Throws Error if the file is no such file, if a count, a token or the file's size is wrong, or
  // if it was cut short. `bytes` outlives the object; `path` is for messages.
  explicit KldFile(const std::string& path);
  KldFile(std::string path, std::span<const std::byte> bytes);

  const std::string& path() const { return path_; }
  int64_t context() const { return context_; }
  int64_t vocab_size() const { return vocab_; }
  int64_t chunks() const { return chunks_; }
  int64_t first_position() const { return context_ / 2; }
  int64_t rows_per_chunk() const { return context_ - 1 - context_ / 2; }
  // As they stand in the file. Each is in [0, vocab_size()).
  std::span<const int32_t> tokens(int64_t chunk) const;
  // REQUIRES: 0 <= row < rows_per_chunk(); that of position first_position() + row. Throws Error if
  // its scale or floor cannot belong to log probabilities.
  KldRow row(int64_t chunk, int64_t row) const;
  // The pages of a chunk's rows are not needed any more.
  void release(int64_t chunk) const;

 private:
  void parse(std::span<const std::byte> bytes);
  std::span<const std::byte> chunk_bytes(int64_t chunk) const;

  std::string path_;
  std::optional<MappedFile> mapping_;
  int64_t context_ = 0, vocab_ = 0, chunks_ = 0;
  std::vector<int32_t> tokens_;
  std::span<const std::byte> rows_;
};

// Bytes of one row.
[[nodiscard]] int64_t kld_row_bytes(int64_t vocab_size);

// Encodes logits as llama.cpp does, bit for bit: the same operations in float, in the same order.
// REQUIRES: row.size() == kld_row_bytes(logits.size()); logits are finite or -infinity, and not all
// -infinity.
void encode_kld_row(std::span<const float> logits, std::span<std::byte> row);

// The head of a file: everything before the rows. REQUIRES: tokens.size() == chunks * context, and
// each count fits its field.
[[nodiscard]] std::string kld_head(int64_t context, int64_t vocab_size, int64_t chunks,
                                   std::span<const int32_t> tokens);

}  // namespace carat::audit
