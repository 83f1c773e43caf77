// Any bytes as a .carat-ref file, and as a chunk of one, which no checksum guards: refused with an
// Error, or every row is one that a teacher could have said.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "audit/teacher_store_format.h"
#include "audit/teacher_store_kinds.h"
#include "base/error.h"

namespace {

using namespace carat::audit;  // NOLINT: a program of one file

void read_chunk(std::span<const std::byte> bytes, int64_t vocab) {
  const RefChunk chunk = decode_ref_rows(bytes, vocab);
  CHECK(chunk.row_at.size() == chunk.chunk.compared.size());
  for (size_t r = 0; r < chunk.row_at.size(); ++r) {
    const auto position = static_cast<size_t>(chunk.chunk.compared[r]);
    CHECK(position + 1 < chunk.chunk.tokens.size());
    size_t at = chunk.row_at[r];
    const RefRow row = decode_ref_row(bytes, at, vocab, chunk.chunk.tokens[position + 1]);
    for (const RefToken& t : row.top) CHECK(t.token >= 0 && t.token < vocab);
    for (const RefToken& t : row.samples) CHECK(t.token >= 0 && t.token < vocab);
    CHECK(row.tail >= 0 && row.tail <= 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const auto teacher = open_ref_teacher("x.carat-ref", bytes);
    const auto vocab = static_cast<size_t>(teacher->vocab_size());
    if (vocab <= 4096) {
      const std::vector<float> candidate(vocab, 0.0f);
      std::vector<float> row(vocab);
      for (int64_t c = 0; c < teacher->chunk_count(); ++c) {
        teacher->select(c);
        const auto rows = static_cast<int64_t>(teacher->chunk(c).compared.size());
        for (int64_t r = 0; r < rows; ++r) (void)teacher->fill_row(r, candidate, row);
      }
    }
  } catch (const carat::Error&) {
  }
  try {
    read_chunk(bytes, 300);
  } catch (const carat::Error&) {
  }
  return 0;
}
