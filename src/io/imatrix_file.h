// Importance matrices: how large the inputs of every weight matrix were while a model read a text.
// Both files that llama.cpp's llama-imatrix reads and writes: GGUF with general.type "imatrix", and
// the binary file of before (.dat). Grammar: docs/formats.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace carat::io {

// Of one tensor. Sums and counts are finite and not negative; sums.size() is a multiple of
// counts.size(), and neither is 0.
struct ImatrixEntry {
  std::string name;           // of the tensor in GGUF files: "blk.3.ffn_down.weight"
  std::vector<float> sums;    // sum of x^2 of each column, matrix after matrix (experts)
  std::vector<float> counts;  // inputs that each matrix saw; a single one for all in .dat files

  // Mean of x^2 of each column, like sums; 1 throughout a matrix that saw nothing.
  std::vector<float> means() const;
};

struct Imatrix {
  std::vector<ImatrixEntry> entries;  // by name
  std::vector<std::string> datasets;  // what was read, as whoever made it wrote it
  int64_t chunk_count = 0;            // 0: not known
  int64_t chunk_size = 0;             // tokens; 0: not known

  // Null if there is none.
  const ImatrixEntry* find(std::string_view name) const;
};

// A .dat file keeps means only: its counts are numbers of chunks, and its sums the means times
// those. Throws Error: the file is neither kind, is cut, or holds what an importance cannot be.
// Allocates in proportion to `bytes`. `path` is for messages.
[[nodiscard]] Imatrix parse_imatrix(std::span<const std::byte> bytes, const std::string& path);
[[nodiscard]] Imatrix read_imatrix(const std::string& path);

// A .dat file if the path ends so, else GGUF. Throws Error. REQUIRES: entries as described above,
// sorted by name.
void write_imatrix(const std::string& path, const Imatrix& imatrix);

}  // namespace carat::io
